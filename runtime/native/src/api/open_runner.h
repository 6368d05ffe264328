// Makes the runner of a bundle: checks the options and opens the engine library of its target (engines/loading.py).
#pragma once

#include <cstdint>
#include <future>
#include <memory>

#include "api/loop.h"
#include "bundle/verify.h"
#include "engine/onnxruntime_library.h"
#include "engine/runner.h"
#include "hart_edge.h"

namespace hart_edge {

using Starting = std::future<std::unique_ptr<OnnxRuntimeLibrary>>;

// Check the options and return them unchanged. Throws the engine error or the argument error for what no engine takes.
const hart_edge_options &checked(const hart_edge_options &options);

// Begin to load ONNX Runtime on another thread.
Starting start_library(const hart_edge_options &options);

// Bytes that a bundle's weights, its buffers and a preview need. buffers: bytes of the block that they lie in.
std::uint64_t memory_needed(const Bundle &bundle, std::size_t buffers);

// memory: from memory_needed(). Throws the engine error for a target that this library does not run, and the memory
// error.
std::unique_ptr<Runner> make_runner(const Bundle &bundle, Starting &library, const hart_edge_options &options,
                                    std::uint64_t memory);

}  // namespace hart_edge
