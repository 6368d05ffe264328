// Run a bundle's engines with TensorRT (engines/tensorrt/runner.py): the same plan, on buffers of the device.
//
// Every block of memory that tensors lie in has a twin on the device. Graphs pass their results on there without a
// copy; the host uploads prompts, noise and settings, and downloads what a caller reads. There is one stream, and one
// block of memory for the activations of all contexts, since only one runs at a time. Shapes and addresses are set
// once.
#pragma once

#include <NvInferRuntime.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "bundle/verify.h"
#include "engine/cuda_driver.h"
#include "engine/runner.h"

namespace hart_edge {

class TensorRtRunner : public Runner {
 public:
    // library: path of libnvinfer.so; where empty, the environment's HART_EDGE_TENSORRT, or else the library that the
    // system finds. Throws the engine error where this machine cannot run the bundle. The bundle must outlive the
    // runner.
    TensorRtRunner(const Bundle &bundle, const std::string &library, int device);
    ~TensorRtRunner() override;

    [[nodiscard]] std::string name() const override { return "TensorRT " + version_; }
    void register_memory(const void *data, std::size_t bytes, bool constant) override;
    void upload(const void *data, std::size_t bytes) override;
    void download(void *data, std::size_t bytes) override;
    std::size_t bind(ComponentName graph, std::optional<std::int64_t> scale, const std::vector<Tensor> &inputs,
                     const std::vector<Tensor> &outputs) override;
    void load(const std::vector<ComponentName> &graphs, std::size_t awaited) override;
    void run(std::size_t binding) override;
    void stop() noexcept override { stopped_ = true; }
    void resume() noexcept override { stopped_ = false; }

 private:
    // Keeps the last error of TensorRT for the message of our exception.
    class Logger : public nvinfer1::ILogger {
     public:
        void log(Severity severity, const char *message) noexcept override;
        [[nodiscard]] std::string last_error();

     private:
        std::mutex mutex_;
        std::string error_;
    };
    struct Block {
        const char *host;
        std::size_t bytes;
        CUdeviceptr device;
    };
    struct Binding {
        const Component *component;
        std::size_t profile;
        std::vector<Tensor> inputs;
        std::vector<Tensor> outputs;
        std::unique_ptr<nvinfer1::IExecutionContext> context;
    };

    [[noreturn]] void fail(const Binding &binding, const std::string &what);
    CUdeviceptr allocate(std::size_t bytes, const std::string &what);
    [[nodiscard]] CUdeviceptr twin(const void *data) const;
    std::unique_ptr<nvinfer1::ICudaEngine> open(const Component &component);
    void prepare(Binding &binding, nvinfer1::ICudaEngine &engine);
    void place(Binding &binding, const nvinfer1::ICudaEngine &engine, const Tensor &tensor);
    void place_unwanted(Binding &binding, const nvinfer1::ICudaEngine &engine);

    const Bundle &bundle_;
    SharedLibrary library_;
    std::string version_;
    Cuda cuda_;
    Logger logger_;
    std::vector<CUdeviceptr> owned_;
    std::vector<Block> blocks_;
    // Destroyed in reverse order: contexts before engines before the runtime.
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::vector<std::unique_ptr<nvinfer1::ICudaEngine>> engines_;
    std::vector<Binding> bindings_;
    std::int64_t activations_ = 0;  // bytes of activations of the largest context
    CUdeviceptr sink_ = 0;          // takes outputs without a buffer; shared, since one context runs at a time
    std::int64_t sink_bytes_ = 0;
    std::atomic<bool> stopped_{false};
};

}  // namespace hart_edge
