// What an engine library does for the loop: load graphs, bind steps to memory once, run them (Runner of
// runtime/loop.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bundle/plan.h"

namespace hart_edge {

// A graph's input or output, in C order at `data`, an address that does not change.
struct Tensor {
    std::string name;
    Dtype dtype;
    std::vector<std::int64_t> shape;
    void *data;
    std::size_t bytes;
};

class Runner {
 public:
    Runner() = default;
    virtual ~Runner() = default;
    Runner(const Runner &) = delete;
    Runner &operator=(const Runner &) = delete;

    // The engine and its version, "ONNX Runtime 1.21.0".
    [[nodiscard]] virtual std::string name() const = 0;

    // An engine with memory of its own, as on a GPU, keeps a copy there of every block of memory that tensors lie in. A
    // block is registered before bind(); a constant one never changes. upload() is called after the host has written
    // bytes, download() before it reads them.
    virtual void register_memory(const void * /*data*/, std::size_t /*bytes*/, bool /*constant*/) {}
    virtual void upload(const void * /*data*/, std::size_t /*bytes*/) {}
    virtual void download(void * /*data*/, std::size_t /*bytes*/) {}

    // Bind a graph to the tensors that it will run with, at a scale or outside the loop over scales. Called before
    // load(). Returns the number to pass to run(). Throws the engine error.
    virtual std::size_t bind(ComponentName graph, std::optional<std::int64_t> scale, const std::vector<Tensor> &inputs,
                             const std::vector<Tensor> &outputs) = 0;

    // Begin to load graphs, in this order, and return when the first `awaited` of them can run; run() waits for the
    // others. Throws the engine error of a graph that was awaited.
    virtual void load(const std::vector<ComponentName> &graphs, std::size_t awaited) = 0;

    // Whether a thread that load() began is still at work.
    [[nodiscard]] virtual bool is_loading() const noexcept { return false; }

    // Compute the outputs of a binding in place. Throws the engine error, also where its graph failed to load.
    virtual void run(std::size_t binding) = 0;

    // Make the run in progress fail soon, and every run until resume(). Any thread, and a signal handler too.
    virtual void stop() noexcept = 0;
    virtual void resume() noexcept = 0;
};

}  // namespace hart_edge
