// Run a bundle's graphs with ONNX Runtime, on the CPU or on a CUDA device (engines/onnxruntime/runner.py).
//
// Buffers are bound, not copied: a graph writes its outputs straight into the memory that the next one reads. The
// session options are those of the Python runner, because others would change the bytes of a picture; but for the reuse
// of buffers, which changes none, and which the library's C interface cannot set.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "bundle/verify.h"
#include "engine/onnxruntime_library.h"
#include "engine/runner.h"

namespace hart_edge {

struct OnnxRuntimeOptions {
    int threads = 0;                 // threads inside an operator; 0: one per core
    int device = 0;                  // the CUDA device
    std::uint64_t memory_limit = 0;  // bytes of the arena on a CUDA device; 0: no limit
};

class OnnxRuntimeRunner : public Runner {
 public:
    // Throws the engine error. The bundle must outlive the runner.
    OnnxRuntimeRunner(const Bundle &bundle, std::unique_ptr<OnnxRuntimeLibrary> library,
                      const OnnxRuntimeOptions &options);
    ~OnnxRuntimeRunner() override;

    [[nodiscard]] std::string name() const override { return library_->name(); }
    std::size_t bind(ComponentName graph, std::optional<std::int64_t> scale, const std::vector<Tensor> &inputs,
                     const std::vector<Tensor> &outputs) override;
    void load(const std::vector<ComponentName> &graphs, std::size_t awaited) override;
    [[nodiscard]] bool is_loading() const noexcept override { return finished_ < order_.size(); }
    void run(std::size_t binding) override;
    void stop() noexcept override;
    void resume() noexcept override;

 private:
    // An object of ONNX Runtime, released by the function that the library has for its type.
    template <typename T>
    using Owned = std::unique_ptr<T, void (*)(T *)>;

    struct Bound {
        std::string name;
        Owned<OrtValue> value;
    };
    // What a block leaves and nobody reads, and where it lies in unread_.
    struct Unread {
        Tensor tensor;
        std::size_t offset;
    };
    struct Binding {
        ComponentName graph;
        std::vector<Bound> inputs;
        std::vector<Bound> outputs;
        std::vector<Unread> unread;
        std::string before, after;  // what stands around the engine's message if a run fails
        Owned<OrtIoBinding> binding;
    };
    struct Graph {
        Owned<OrtSession> session;
        std::exception_ptr fault;  // why it could not be loaded
        bool done = false;         // it is loaded, or has failed to load
    };

    void use_provider(Target target, const OnnxRuntimeOptions &options);
    [[nodiscard]] Bound tie(const Tensor &tensor) const;
    void find_unread(Binding &binding, const std::vector<Tensor> &inputs, const std::vector<Tensor> &outputs);
    void load_until(std::size_t end) noexcept;
    void load_one(ComponentName graph);
    const Graph &wait(ComponentName graph);
    OrtSession *loaded(ComponentName graph);

    const Bundle &bundle_;
    std::unique_ptr<OnnxRuntimeLibrary> library_;
    const OrtApi &api_;
    bool copies_inputs_ = false;  // binding copies inputs to a device
    Owned<OrtSessionOptions> options_;
    Owned<OrtRunOptions> run_options_;
    Owned<OrtMemoryInfo> memory_;
    std::vector<Graph> graphs_;  // indexed by ComponentName
    std::vector<Binding> bindings_;
    std::unique_ptr<char[]> unread_;  // one run at a time writes it
    std::size_t unread_bytes_ = 0;

    // Loading: the caller and one more thread take graphs from order_ until the awaited ones are loaded; the thread
    // then goes on with the others. They mark what is done in graphs_, which mutex_ guards.
    std::vector<ComponentName> order_;
    std::atomic<std::size_t> next_{0};
    std::atomic<std::size_t> finished_{0};
    std::atomic<bool> closing_{false};
    std::mutex mutex_;
    std::condition_variable loaded_;
    std::thread loader_;
};

}  // namespace hart_edge
