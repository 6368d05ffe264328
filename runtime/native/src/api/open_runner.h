// The runner of a bundle: options checked, the engine library of its target opened (engines/loading.py).
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

// The options as they are. Throws the engine error or the argument error for what no engine takes.
const hart_edge_options &checked(const hart_edge_options &options);

// Load ONNX Runtime beside other work.
Starting start_library(const hart_edge_options &options);

// Bytes of a bundle's weights and buffers, and of a preview.
std::uint64_t memory_needed(const Bundle &bundle, const Buffers &buffers);

// memory: of memory_needed(). Throws the engine error for a target that this library does not run, the memory error.
std::unique_ptr<Runner> make_runner(const Bundle &bundle, Starting &library, const hart_edge_options &options,
                                    std::uint64_t memory);

}  // namespace hart_edge
