// What an engine library does for the loop: load graphs, tie steps to memory once, run them (Runner of
// runtime/loop.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bundle/plan.h"

namespace hart_edge {

// A graph's input or output, in C order at `data`, which stays where it is.
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

    // An engine that works in memory of its own, a GPU's, keeps a twin of the memory that tensors lie in. It is
    // registered before bind(), and what is constant never changes; upload(): the bytes have been written; download():
    // they will be read.
    virtual void register_memory(const void * /*data*/, std::size_t /*bytes*/, bool /*constant*/) {}
    virtual void upload(const void * /*data*/, std::size_t /*bytes*/) {}
    virtual void download(void * /*data*/, std::size_t /*bytes*/) {}

    // Note that a graph will run with these tensors, always the same, at a scale or outside the loop over scales;
    // before load(). Returns the number to run it by. Throws the engine error.
    virtual std::size_t bind(ComponentName graph, std::optional<std::int64_t> scale, const std::vector<Tensor> &inputs,
                             const std::vector<Tensor> &outputs) = 0;

    // Begin to load graphs, in this order, and return when the first `awaited` of them can run; a run of another waits
    // for it. Throws the engine error of those that were awaited.
    virtual void load(const std::vector<ComponentName> &graphs, std::size_t awaited) = 0;

    // Whether a thread is still at work that load() began.
    [[nodiscard]] virtual bool is_loading() const noexcept { return false; }

    // Compute the outputs of a binding in place. Throws the engine error, also that of loading its graph.
    virtual void run(std::size_t binding) = 0;

    // Make the run in progress fail soon, and every one until resume(). From any thread, and from a signal handler.
    virtual void stop() noexcept = 0;
    virtual void resume() noexcept = 0;
};

}  // namespace hart_edge
