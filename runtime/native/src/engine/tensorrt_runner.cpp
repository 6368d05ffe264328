#include "engine/tensorrt_runner.h"

#include <algorithm>
#include <cstdlib>
#include <functional>

#include "bundle/files.h"
#include "engine/compatibility.h"
#include "errors.h"

namespace hart_edge {

namespace {

constexpr const char *VARIABLE = "HART_EDGE_TENSORRT";
// The interface is C++, so the library has to be of the header's major version.
const std::string LIBRARY = "libnvinfer.so." + std::to_string(NV_TENSORRT_MAJOR);

nvinfer1::DataType data_type(Dtype dtype) {
    switch (dtype) {
        case Dtype::float32: return nvinfer1::DataType::kFLOAT;
        case Dtype::float16: return nvinfer1::DataType::kHALF;
        case Dtype::int64: return nvinfer1::DataType::kINT64;
        case Dtype::int32: return nvinfer1::DataType::kINT32;
        case Dtype::uint8: return nvinfer1::DataType::kUINT8;
        case Dtype::int8: return nvinfer1::DataType::kINT8;
        case Dtype::boolean: break;
    }
    return nvinfer1::DataType::kBOOL;
}

SharedLibrary load_library(const std::string &path) {
    const char *variable = std::getenv(VARIABLE);
    const std::string named = !path.empty() ? path : variable != nullptr ? variable : LIBRARY;
    SharedLibrary library({named});
    if (!library) {
        throw Error(Status::engine, "expected TensorRT " + std::to_string(NV_TENSORRT_MAJOR) + "'s library " + named +
                                        ", found none that loads (" + library.fault() +
                                        "); install TensorRT (on Jetson: libnvinfer of JetPack) or name its library in "
                                        "HART_EDGE_TENSORRT or hart_edge_options");
    }
    return library;
}

// The version of a library, "10.13.3". Throws the engine error unless its interface is that of the header.
std::string version_of(const SharedLibrary &library) {
    std::string version;
    for (const char *part : {"getInferLibMajorVersion", "getInferLibMinorVersion", "getInferLibPatchVersion"}) {
        const auto number = library.find<std::int32_t (*)()>(part);
        if (number == nullptr) {
            throw Error(Status::engine, std::string("expected TensorRT 10.3 or newer, found a library without ") +
                                            part + "; install another or name it in HART_EDGE_TENSORRT");
        }
        version += (version.empty() ? "" : ".") + std::to_string(number());
    }
    const std::string header = std::to_string(NV_TENSORRT_MAJOR);
    if (version.compare(0, header.size() + 1, header + ".") != 0) {
        throw Error(Status::engine, "expected TensorRT " + header + ", for which this library was compiled, found " +
                                        version + "; compile it with that one's headers");
    }
    return version;
}

}  // namespace

void TensorRtRunner::Logger::log(Severity severity, const char *message) noexcept {
    if (severity > Severity::kERROR) return;
    try {
        const std::lock_guard<std::mutex> lock(mutex_);
        error_ = message;
    } catch (...) {  // no memory for a message
    }
}

std::string TensorRtRunner::Logger::last_error() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return error_.empty() ? "it gave no reason" : error_;
}

TensorRtRunner::TensorRtRunner(const Bundle &bundle, const std::string &library, int device)
    : bundle_(bundle), library_(load_library(library)), version_(version_of(library_)), cuda_(device) {
    check_machine(bundle.manifest.target, version_, cuda_.architecture());
    const auto create = library_.find<void *(*)(void *, std::int32_t) noexcept>("createInferRuntime_INTERNAL");
    if (create != nullptr) {
        nvinfer1::ILogger *logger = &logger_;
        runtime_.reset(static_cast<nvinfer1::IRuntime *>(create(logger, NV_TENSORRT_VERSION)));
    }
    if (runtime_ == nullptr) {
        throw Error(Status::engine, name() + " did not start (" + logger_.last_error() + "); check the library");
    }
}

TensorRtRunner::~TensorRtRunner() {
    try {
        cuda_.enter();         // this thread may not be the one that opened the device
    } catch (const Error &) {  // a lost device has nothing to free
    }
    bindings_.clear();
    for (const CUdeviceptr address : owned_) cuda_.free(address);
}

void TensorRtRunner::fail(const Binding &binding, const std::string &what) {
    throw Error(Status::engine, std::string(word(binding.component->name)) + ": " + name() + " " + what + " (" +
                                    logger_.last_error() + "); build the engines again with hart-edge engines");
}

CUdeviceptr TensorRtRunner::allocate(std::size_t bytes, const std::string &what) {
    owned_.reserve(owned_.size() + 1);  // so that push_back cannot throw and leak the memory
    owned_.push_back(cuda_.allocate(bytes, what));
    return owned_.back();
}

void TensorRtRunner::register_memory(const void *data, std::size_t bytes, bool constant) {
    cuda_.enter();
    const CUdeviceptr device = allocate(bytes, "the plan's buffers");
    blocks_.push_back({static_cast<const char *>(data), bytes, device});
    if (constant) cuda_.upload(device, data, bytes);
}

// The address on the device of the copy of what lies at `data`.
CUdeviceptr TensorRtRunner::twin(const void *data) const {
    const auto *at = static_cast<const char *>(data);
    for (const Block &block : blocks_) {
        const bool before = std::less<>()(at, block.host);
        if (!before && std::less<>()(at, block.host + std::max<std::size_t>(block.bytes, 1))) {
            return block.device + static_cast<CUdeviceptr>(at - block.host);
        }
    }
    throw Error(Status::engine, "a tensor lies in memory that the runner does not hold");
}

void TensorRtRunner::upload(const void *data, std::size_t bytes) {
    cuda_.enter();
    cuda_.upload(twin(data), data, bytes);
}

void TensorRtRunner::download(void *data, std::size_t bytes) {
    if (bytes == 0) return;
    cuda_.enter();
    cuda_.download(data, twin(data), bytes);
}

std::size_t TensorRtRunner::bind(ComponentName graph, std::optional<std::int64_t> scale,
                                 const std::vector<Tensor> &inputs, const std::vector<Tensor> &outputs) {
    const Component &component = component_of(bundle_.manifest, graph);
    const auto &profiles = *component.profiles;  // check_engines saw one for every step
    const auto profile = std::find(profiles.begin(), profiles.end(), scale) - profiles.begin();
    bindings_.push_back({&component, static_cast<std::size_t>(profile), inputs, outputs, nullptr});
    return bindings_.size() - 1;
}

void TensorRtRunner::load(const std::vector<ComponentName> &graphs, std::size_t /*awaited*/) {
    cuda_.enter();
    for (const ComponentName graph : graphs) {
        std::unique_ptr<nvinfer1::ICudaEngine> engine;
        for (Binding &binding : bindings_) {
            if (binding.component->name != graph) continue;
            if (engine == nullptr) engine = open(*binding.component);
            prepare(binding, *engine);
        }
        engines_.push_back(std::move(engine));
    }
    const auto bytes = static_cast<std::size_t>(activations_);
    auto *memory = reinterpret_cast<void *>(allocate(bytes, "activations"));
    for (Binding &binding : bindings_) {
        if (binding.context != nullptr) binding.context->setDeviceMemoryV2(memory, activations_);
    }
    cuda_.synchronize();
}

std::unique_ptr<nvinfer1::ICudaEngine> TensorRtRunner::open(const Component &component) {
    auto engine = bundle_.opened({component.file}, [&] {
        const MappedFile file(bundle_.path(component.file));
        return std::unique_ptr<nvinfer1::ICudaEngine>(
            runtime_->deserializeCudaEngine(file.bytes().data(), file.bytes().size()));
    });
    if (engine == nullptr) {
        throw Error(Status::engine, component.file + ": " + name() + " refused this engine (" + logger_.last_error() +
                                        "); build the engines on this machine with hart-edge engines");
    }
    return engine;
}

// Make a binding's execution context, with its profile, shapes and addresses.
void TensorRtRunner::prepare(Binding &binding, nvinfer1::ICudaEngine &engine) {
    const auto profile = static_cast<std::int32_t>(binding.profile);
    binding.context.reset(engine.createExecutionContext(nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED));
    if (binding.context == nullptr || !binding.context->setOptimizationProfileAsync(profile, cuda_.stream())) {
        fail(binding, "gave no context on profile " + std::to_string(profile));
    }
    for (const Tensor &tensor : binding.inputs) {
        nvinfer1::Dims shape{};
        shape.nbDims = static_cast<std::int32_t>(tensor.shape.size());
        for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
            shape.d[axis] = static_cast<std::decay_t<decltype(shape.d[0])>>(tensor.shape[axis]);
        }
        if (!binding.context->setInputShape(tensor.name.c_str(), shape)) fail(binding, "does not take " + tensor.name);
        place(binding, engine, tensor);
    }
    for (const Tensor &tensor : binding.outputs) place(binding, engine, tensor);
    place_unwanted(binding, engine);
    activations_ = std::max(activations_, engine.getDeviceMemorySizeForProfileV2(profile));
}

void TensorRtRunner::place(Binding &binding, const nvinfer1::ICudaEngine &engine, const Tensor &tensor) {
    const char *name = tensor.name.c_str();
    if (engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kNONE ||
        engine.getTensorDataType(name) != data_type(tensor.dtype)) {
        fail(binding, "and the manifest disagree about " + tensor.name);
    }
    // TensorRT computes a shape that depends on a tensor's value on the host, and reads the tensor from host memory.
    const bool on_host = engine.getTensorLocation(name) == nvinfer1::TensorLocation::kHOST;
    void *address = on_host ? tensor.data : reinterpret_cast<void *>(twin(tensor.data));
    if (!binding.context->setTensorAddress(name, address)) fail(binding, "does not take the place of " + tensor.name);
}

// An engine writes all of its outputs: those without a buffer go to memory that nobody reads.
void TensorRtRunner::place_unwanted(Binding &binding, const nvinfer1::ICudaEngine &engine) {
    for (const TensorSpec &spec : binding.component->outputs) {
        const auto same = [&spec](const Tensor &tensor) { return tensor.name == spec.name; };
        if (std::any_of(binding.outputs.begin(), binding.outputs.end(), same)) continue;
        if (engine.getTensorIOMode(spec.name.c_str()) == nvinfer1::TensorIOMode::kNONE) continue;
        const std::int64_t bytes = binding.context->getMaxOutputSize(spec.name.c_str());
        if (bytes < 0) fail(binding, "does not tell the size of " + spec.name);
        if (bytes > sink_bytes_) {
            sink_ = allocate(static_cast<std::size_t>(bytes), spec.name);
            sink_bytes_ = bytes;
        }
        if (!binding.context->setTensorAddress(spec.name.c_str(), reinterpret_cast<void *>(sink_))) {
            fail(binding, "does not take the place of " + spec.name);
        }
    }
}

void TensorRtRunner::run(std::size_t index) {
    Binding &binding = bindings_[index];
    if (stopped_) fail(binding, "was stopped");
    cuda_.enter();
    if (!binding.context->enqueueV3(cuda_.stream())) fail(binding, "failed while running");
}

}  // namespace hart_edge
