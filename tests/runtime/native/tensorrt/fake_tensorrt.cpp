// A fake TensorRT: an engine is the word `fake`, a byte for the number of its profiles, and an ONNX graph, which ONNX
// Runtime computes with one thread. It requires of its caller what TensorRT requires: a profile, shapes, addresses
// aligned to 256 bytes for every tensor, and memory for activations.
//
// HART_EDGE_FAKE_VERSION: by default 10.13.3; HART_EDGE_FAKE_FAULT: start, open, context or run, which then fails.
#include <NvInferRuntime.h>
#include <dlfcn.h>
#include <onnxruntime_c_api.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace {

using namespace nvinfer1;

const OrtApi *ort = nullptr;
OrtEnv *environment = nullptr;

constexpr std::size_t HEADER = 5;
constexpr std::int64_t ACTIVATIONS = 4096;  // bytes that a context asks for
constexpr std::int64_t LARGEST_OUTPUT = 1 << 24;

void check(OrtStatus *status) {
    if (status == nullptr) return;
    std::fprintf(stderr, "fake TensorRT: %s\n", ort->GetErrorMessage(status));
    std::abort();
}

bool fails(const char *what) {
    const char *fault = std::getenv("HART_EDGE_FAKE_FAULT");
    return fault != nullptr && std::strcmp(fault, what) == 0;
}

DataType data_type(ONNXTensorElementDataType type) {
    switch (type) {
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT: return DataType::kFLOAT;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64: return DataType::kINT64;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32: return DataType::kINT32;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8: return DataType::kUINT8;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8: return DataType::kINT8;
        case ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16: return DataType::kHALF;
        default: return DataType::kBOOL;
    }
}

struct Spec {
    TensorIOMode mode;
    ONNXTensorElementDataType type;
};

struct Graph {
    OrtSession *session = nullptr;
    int profiles = 0;
    std::map<std::string, Spec> tensors;
    std::vector<std::string> outputs;
    ILogger *logger = nullptr;

    ~Graph() { ort->ReleaseSession(session); }

    void add(TensorIOMode mode, std::size_t index) {
        OrtAllocator *allocator = nullptr;
        char *name = nullptr;
        OrtTypeInfo *info = nullptr;
        const OrtTensorTypeAndShapeInfo *tensor = nullptr;
        ONNXTensorElementDataType type{};
        check(ort->GetAllocatorWithDefaultOptions(&allocator));
        const bool input = mode == TensorIOMode::kINPUT;
        check(input ? ort->SessionGetInputName(session, index, allocator, &name)
                    : ort->SessionGetOutputName(session, index, allocator, &name));
        check(input ? ort->SessionGetInputTypeInfo(session, index, &info)
                    : ort->SessionGetOutputTypeInfo(session, index, &info));
        check(ort->CastTypeInfoToTensorInfo(info, &tensor));
        check(ort->GetTensorElementType(tensor, &type));
        tensors[name] = {mode, type};
        if (!input) outputs.emplace_back(name);
        ort->ReleaseTypeInfo(info);
        check(ort->AllocatorFree(allocator, name));
    }
};

class Context : public IExecutionContext {
 public:
    explicit Context(std::shared_ptr<Graph> graph) : graph_(std::move(graph)) {}

    bool setOptimizationProfileAsync(std::int32_t profile, cudaStream_t) noexcept override {
        has_profile_ = profile >= 0 && profile < graph_->profiles;
        return has_profile_;
    }
    bool setInputShape(const char *name, const Dims &shape) noexcept override {
        if (!has_profile_ || graph_->tensors.at(name).mode != TensorIOMode::kINPUT) return false;
        shapes_[name].assign(shape.d, shape.d + shape.nbDims);
        return true;
    }
    bool setTensorAddress(const char *name, void *address) noexcept override {
        if (address == nullptr || reinterpret_cast<std::uintptr_t>(address) % 256 != 0) return false;
        addresses_[name] = address;
        return graph_->tensors.count(name) == 1;
    }
    std::int64_t getMaxOutputSize(const char *) const noexcept override { return LARGEST_OUTPUT; }
    void setDeviceMemoryV2(void *memory, std::int64_t size) noexcept override {
        has_memory_ = memory != nullptr && size >= ACTIVATIONS;
    }

    bool enqueueV3(cudaStream_t) noexcept override {
        if (!has_memory_ || addresses_.size() != graph_->tensors.size() || fails("run")) {
            graph_->logger->log(ILogger::Severity::kERROR, "a kernel failed");
            return false;
        }
        std::vector<const char *> names, wanted;
        std::vector<const OrtValue *> inputs;
        std::vector<OrtValue *> held, results(graph_->outputs.size());
        OrtMemoryInfo *memory = nullptr;
        check(ort->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
        for (const auto &[name, shape] : shapes_) {
            std::size_t bytes = 1;
            for (const std::int64_t extent : shape) bytes *= static_cast<std::size_t>(extent);
            bytes *= size_of(graph_->tensors[name].type);
            OrtValue *value = nullptr;
            check(ort->CreateTensorWithDataAsOrtValue(memory, addresses_[name], bytes, shape.data(), shape.size(),
                                                      graph_->tensors[name].type, &value));
            names.push_back(name.c_str());
            inputs.push_back(value);
            held.push_back(value);
        }
        for (const std::string &name : graph_->outputs) wanted.push_back(name.c_str());
        check(ort->Run(graph_->session, nullptr, names.data(), inputs.data(), inputs.size(), wanted.data(),
                       wanted.size(), results.data()));
        for (std::size_t index = 0; index < results.size(); ++index) {
            OrtTensorTypeAndShapeInfo *info = nullptr;
            std::size_t elements = 0;
            void *data = nullptr;
            check(ort->GetTensorTypeAndShape(results[index], &info));
            check(ort->GetTensorShapeElementCount(info, &elements));
            check(ort->GetTensorMutableData(results[index], &data));
            const std::string &name = graph_->outputs[index];
            std::memcpy(addresses_[name], data, elements * size_of(graph_->tensors[name].type));
            ort->ReleaseTensorTypeAndShapeInfo(info);
            ort->ReleaseValue(results[index]);
        }
        for (OrtValue *value : held) ort->ReleaseValue(value);
        ort->ReleaseMemoryInfo(memory);
        return true;
    }

 private:
    static std::size_t size_of(ONNXTensorElementDataType type) {
        switch (data_type(type)) {
            case DataType::kINT64: return 8;
            case DataType::kFLOAT:
            case DataType::kINT32: return 4;
            case DataType::kHALF: return 2;
            default: return 1;
        }
    }
    std::shared_ptr<Graph> graph_;
    bool has_profile_ = false, has_memory_ = false;
    std::map<std::string, std::vector<std::int64_t>> shapes_;
    std::map<std::string, void *> addresses_;
};

class Engine : public ICudaEngine {
 public:
    explicit Engine(std::shared_ptr<Graph> graph) : graph_(std::move(graph)) {}
    IExecutionContext *createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
        if (fails("context") || strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED) return nullptr;
        return new Context(graph_);
    }
    TensorIOMode getTensorIOMode(const char *name) const noexcept override {
        const auto found = graph_->tensors.find(name);
        return found == graph_->tensors.end() ? TensorIOMode::kNONE : found->second.mode;
    }
    DataType getTensorDataType(const char *name) const noexcept override {
        return data_type(graph_->tensors.at(name).type);
    }
    TensorLocation getTensorLocation(const char *name) const noexcept override {
        return std::strcmp(name, "top_k") == 0 ? TensorLocation::kHOST : TensorLocation::kDEVICE;
    }
    std::int64_t getDeviceMemorySizeForProfileV2(std::int32_t) const noexcept override { return ACTIVATIONS; }

 private:
    std::shared_ptr<Graph> graph_;
};

class Runtime : public IRuntime {
 public:
    explicit Runtime(ILogger *logger) : logger_(logger) {}
    ICudaEngine *deserializeCudaEngine(const void *data, std::size_t size) noexcept override {
        const auto *bytes = static_cast<const char *>(data);
        if (size < HEADER || std::memcmp(bytes, "fake", 4) != 0 || fails("open")) {
            logger_->log(ILogger::Severity::kERROR, "magic tag does not match");
            return nullptr;
        }
        auto graph = std::make_shared<Graph>();
        graph->logger = logger_;
        graph->profiles = bytes[4];
        OrtSessionOptions *options = nullptr;
        check(ort->CreateSessionOptions(&options));
        check(ort->SetIntraOpNumThreads(options, 1));
        check(ort->CreateSessionFromArray(environment, bytes + HEADER, size - HEADER, options, &graph->session));
        ort->ReleaseSessionOptions(options);
        std::size_t count = 0;
        check(ort->SessionGetInputCount(graph->session, &count));
        for (std::size_t index = 0; index < count; ++index) graph->add(TensorIOMode::kINPUT, index);
        check(ort->SessionGetOutputCount(graph->session, &count));
        for (std::size_t index = 0; index < count; ++index) graph->add(TensorIOMode::kOUTPUT, index);
        return new Engine(graph);
    }

 private:
    ILogger *logger_;
};

std::int32_t version_part(int which) {
    const char *text = std::getenv("HART_EDGE_FAKE_VERSION");
    int parts[3] = {10, 13, 3};
    if (text != nullptr) std::sscanf(text, "%d.%d.%d", &parts[0], &parts[1], &parts[2]);
    return parts[which];
}

}  // namespace

extern "C" {

std::int32_t getInferLibMajorVersion() {
    return version_part(0);
}
std::int32_t getInferLibMinorVersion() {
    return version_part(1);
}
std::int32_t getInferLibPatchVersion() {
    return version_part(2);
}

void *createInferRuntime_INTERNAL(void *logger, std::int32_t version) noexcept {
    if (version != NV_TENSORRT_VERSION || fails("start")) return nullptr;
    if (ort == nullptr) {
        void *library = dlopen(std::getenv("HART_EDGE_REAL_ONNXRUNTIME"), RTLD_NOW | RTLD_LOCAL);
        if (library == nullptr) return nullptr;
        const auto get = reinterpret_cast<const OrtApiBase *(*)()>(dlsym(library, "OrtGetApiBase"));
        ort = get()->GetApi(20);
        check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "fake", &environment));
    }
    IRuntime *runtime = new Runtime(static_cast<ILogger *>(logger));
    return runtime;
}

}  // extern "C"
