#include "engine/onnxruntime_runner.h"

#include <algorithm>
#include <map>
#include <system_error>
#include <tuple>

#include "errors.h"

namespace hart_edge {

namespace {

// Bytes of keys and values from which a graph gets an arena; engines/onnxruntime/runner.py says why.
constexpr std::int64_t ARENA_FROM = 1 << 24;

constexpr std::size_t ALIGNMENT = 64;  // of what nobody reads, side by side

// The name that ONNX Runtime gives to what computes for a target. open_runner.cpp sends it no bundle of engines.
const char *provider_of(Target target) {
    switch (target) {
        case Target::cpu: return "CPUExecutionProvider";
        case Target::cuda: return "CUDAExecutionProvider";
        case Target::tensorrt:
        case Target::tensorrt_rtx: break;
    }
    throw Error(Status::engine, "ONNX Runtime runs no bundles for " + std::string(word(target)) + "; build for cpu");
}

std::int64_t cache_bytes(const Plan &plan) {
    std::int64_t bytes = 0;
    for (const auto &[name, buffer] : plan.buffers) {
        if (buffer.kind == BufferKind::cache) bytes += buffer.bytes_per_image;
    }
    return bytes;
}

ONNXTensorElementDataType element_type(Dtype dtype) {
    switch (dtype) {
        case Dtype::float32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
        case Dtype::float16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
        case Dtype::int64: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
        case Dtype::int32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32;
        case Dtype::uint8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
        case Dtype::int8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
        case Dtype::boolean: break;
    }
    return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL;
}

std::string described(const std::vector<Tensor> &tensors) {
    std::string line;
    for (const Tensor &tensor : tensors) {
        if (tensor.bytes == 0) continue;
        std::string shape;
        for (const std::int64_t extent : tensor.shape) shape += (shape.empty() ? "" : ", ") + std::to_string(extent);
        line += (line.empty() ? "" : ", ") + tensor.name + " (" + shape + ")";
    }
    return line;
}

// The name of an output without the number of its block, key.3 -> key; "" for one that no block leaves.
std::string of_any_block(const std::string &output) {
    const std::size_t dot = output.rfind('.');
    if (dot == std::string::npos || dot + 1 == output.size()) return "";
    return output.find_first_not_of("0123456789", dot + 1) == std::string::npos ? output.substr(0, dot) : "";
}

// What the symbols of a graph's shapes stand for, by its inputs.
std::map<std::string, std::int64_t> extents_of(const Component &component, const std::vector<Tensor> &inputs) {
    std::map<std::string, std::int64_t> extents;
    for (const Tensor &tensor : inputs) {
        const auto named = [&tensor](const TensorSpec &spec) { return spec.name == tensor.name; };
        const auto spec = std::find_if(component.inputs.begin(), component.inputs.end(), named);
        if (spec == component.inputs.end()) continue;
        for (std::size_t axis = 0; axis < std::min(spec->shape.size(), tensor.shape.size()); ++axis) {
            extents.try_emplace(spec->shape[axis].symbol, tensor.shape[axis]);
        }
    }
    return extents;
}

}  // namespace

OnnxRuntimeRunner::OnnxRuntimeRunner(const Bundle &bundle, std::unique_ptr<OnnxRuntimeLibrary> library,
                                     const OnnxRuntimeOptions &options)
    : bundle_(bundle),
      library_(std::move(library)),
      api_(library_->api()),
      options_(nullptr, api_.ReleaseSessionOptions),
      run_options_(nullptr, api_.ReleaseRunOptions),
      memory_(nullptr, api_.ReleaseMemoryInfo) {
    const std::string before = name() + " did not take its options (";
    const auto take = [this, &before](OrtStatus *status) { library_->check(status, before, "); check the library"); };
    OrtSessionOptions *session_options = nullptr;
    take(api_.CreateSessionOptions(&session_options));
    options_.reset(session_options);
    OrtRunOptions *run_options = nullptr;
    take(api_.CreateRunOptions(&run_options));
    run_options_.reset(run_options);
    OrtMemoryInfo *memory = nullptr;
    take(api_.CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory));
    memory_.reset(memory);

    take(api_.SetSessionLogSeverityLevel(session_options, ORT_LOGGING_LEVEL_FATAL));
    // Let idle threads sleep. By default those of one graph's session keep spinning while the next graph runs, and take
    // cores from it.
    take(api_.AddSessionConfigEntry(session_options, "session.intra_op.allow_spinning", "0"));
    // Every scale has shapes of its own: memory patterns for a second run of each, and an arena that stays, would keep
    // memory for all of them.
    take(api_.DisableMemPattern(session_options));
    if (cache_bytes(bundle.manifest.plan) < ARENA_FROM) {
        take(api_.DisableCpuMemArena(session_options));
    } else {
        // An arena for each run gives a block of the model the memory that the block before it freed, where malloc
        // would have the system zero new pages. Weights are not in it.
        take(api_.EnableCpuMemArena(session_options));
        take(api_.AddSessionConfigEntry(session_options, "session.use_device_allocator_for_initializers", "1"));
        take(api_.AddRunConfigEntry(run_options, "memory.enable_memory_arena_shrinkage", "cpu:0"));
    }
    if (options.threads > 0) take(api_.SetIntraOpNumThreads(session_options, options.threads));
    use_provider(bundle.manifest.target.name, options);

    for (std::size_t graph = 0; graph < Words<ComponentName>::all.size(); ++graph) {
        graphs_.push_back({Owned<OrtSession>(nullptr, api_.ReleaseSession), nullptr, false});
    }
}

OnnxRuntimeRunner::~OnnxRuntimeRunner() {
    closing_ = true;  // no further graph is loaded
    if (loader_.joinable()) loader_.join();
}

void OnnxRuntimeRunner::use_provider(Target target, const OnnxRuntimeOptions &options) {
    const std::string wanted = provider_of(target);
    const std::string before = name() + " does not name its providers (";
    char **names = nullptr;
    int count = 0;
    library_->check(api_.GetAvailableProviders(&names, &count), before, "); check the library");
    const auto release = [this, &count](char **list) {
        api_.ReleaseStatus(api_.ReleaseAvailableProviders(list, count));
    };
    const std::unique_ptr<char *, decltype(release)> names_held(names, release);
    bool available = false;
    std::string found;
    for (int index = 0; index < count; ++index) {
        available = available || names[index] == wanted;
        found += (found.empty() ? "" : ", ") + std::string(names[index]);
    }
    if (!available) {
        throw Error(Status::engine, "this bundle was built for " + std::string(word(target)) + ": expected " + wanted +
                                        " in " + name() + ", found " + found +
                                        "; name a library that has it or build for cpu");
    }
    if (target != Target::cuda) return;
    OrtCUDAProviderOptionsV2 *cuda = nullptr;
    const std::string start = name() + " cannot use CUDA device " + std::to_string(options.device) + " (";
    const char *end = "); check the driver, or build for cpu";
    library_->check(api_.CreateCUDAProviderOptions(&cuda), start, end);
    const Owned<OrtCUDAProviderOptionsV2> owned(cuda, api_.ReleaseCUDAProviderOptions);
    const std::string device = std::to_string(options.device);
    const std::string limit = std::to_string(options.memory_limit);
    const std::array<const char *, 2> keys{"device_id", "gpu_mem_limit"};
    const std::array<const char *, 2> values{device.c_str(), limit.c_str()};
    const std::size_t given = options.memory_limit > 0 ? 2 : 1;
    library_->check(api_.UpdateCUDAProviderOptions(cuda, keys.data(), values.data(), given), start, end);
    library_->check(api_.SessionOptionsAppendExecutionProvider_CUDA_V2(options_.get(), cuda), start, end);
    copies_inputs_ = true;
}

OnnxRuntimeRunner::Bound OnnxRuntimeRunner::tie(const Tensor &tensor) const {
    const std::string before = tensor.name + ": ONNX Runtime refused this tensor (";
    Bound bound{tensor.name, Owned<OrtValue>(nullptr, api_.ReleaseValue)};
    OrtValue *value = nullptr;
    library_->check(api_.CreateTensorWithDataAsOrtValue(memory_.get(), tensor.data, tensor.bytes, tensor.shape.data(),
                                                        tensor.shape.size(), element_type(tensor.dtype), &value),
                    before, "); update ONNX Runtime or rebuild the bundle");
    bound.value.reset(value);
    return bound;
}

std::size_t OnnxRuntimeRunner::bind(ComponentName graph, std::optional<std::int64_t> /*scale*/,
                                    const std::vector<Tensor> &inputs, const std::vector<Tensor> &outputs) {
    Binding binding{graph, {}, {}, {}, {}, {}, Owned<OrtIoBinding>(nullptr, api_.ReleaseIoBinding)};
    binding.before = std::string(word(graph)) + ": ONNX Runtime failed while running (";
    binding.after = "); inputs were " + described(inputs);
    for (const Tensor &tensor : inputs) binding.inputs.push_back(tie(tensor));
    for (const Tensor &tensor : outputs) binding.outputs.push_back(tie(tensor));
    if (!copies_inputs_) find_unread(binding, inputs, outputs);  // a device would copy it to the host
    bindings_.push_back(std::move(binding));
    return bindings_.size() - 1;
}

// ONNX Runtime holds every output of a graph, asked for or not, until the run ends: what blocks leave after the last
// scale of 1024 pixels is 2.4 GB in float32. So one place serves all blocks: each begins with what the one before it
// made of its own.
void OnnxRuntimeRunner::find_unread(Binding &binding, const std::vector<Tensor> &inputs,
                                    const std::vector<Tensor> &outputs) {
    const Component &graph = component_of(bundle_.manifest, binding.graph);
    if (outputs.size() == graph.outputs.size()) return;
    const std::map<std::string, std::int64_t> extents = extents_of(graph, inputs);
    std::map<std::tuple<std::string, Dtype, std::vector<std::int64_t>>, std::size_t> places;
    std::size_t bytes = 0;
    for (const TensorSpec &spec : graph.outputs) {
        const auto same = [&spec](const Tensor &tensor) { return tensor.name == spec.name; };
        const std::string place = of_any_block(spec.name);
        if (place.empty() || std::any_of(outputs.begin(), outputs.end(), same)) continue;
        Tensor tensor{spec.name, spec.dtype, {}, nullptr, itemsize(spec.dtype)};
        for (const Dimension &dimension : spec.shape) {
            const auto found = extents.find(dimension.symbol);
            if (!dimension.symbol.empty() && found == extents.end()) break;
            tensor.shape.push_back(dimension.symbol.empty() ? dimension.size : found->second);
            tensor.bytes *= static_cast<std::size_t>(tensor.shape.back());
        }
        if (tensor.shape.size() < spec.shape.size()) continue;
        const auto [known, added] = places.try_emplace({place, spec.dtype, tensor.shape}, bytes);
        if (added) bytes += (tensor.bytes / ALIGNMENT + 1) * ALIGNMENT;
        binding.unread.push_back({tensor, known->second});
    }
    unread_bytes_ = std::max(unread_bytes_, bytes);
}

void OnnxRuntimeRunner::load(const std::vector<ComponentName> &graphs, std::size_t awaited) {
    order_ = graphs;
    unread_.reset(new char[unread_bytes_]);  // not initialised: what no graph writes takes no memory
    const auto load_rest = [this, awaited] {
        load_until(awaited);
        for (std::size_t index = 0; index < awaited; ++index) wait(order_[index]);
        load_until(order_.size());
    };
    try {
        loader_ = std::thread(load_rest);
    } catch (const std::system_error &) {
        load_rest();  // the system refused a thread: load on this one
    }
    load_until(awaited);
    for (std::size_t index = 0; index < awaited; ++index) loaded(order_[index]);
}

// Load graphs, one after another, up to `end` of order_.
void OnnxRuntimeRunner::load_until(std::size_t end) noexcept {
    std::size_t index = next_;
    while (index < end && !closing_) {
        if (!next_.compare_exchange_weak(index, index + 1)) continue;
        std::exception_ptr fault;
        try {
            load_one(order_[index]);
        } catch (...) {
            fault = std::current_exception();
        }
        {
            const std::lock_guard<std::mutex> lock(mutex_);
            Graph &graph = graphs_[static_cast<std::size_t>(order_[index])];
            graph.fault = fault;
            graph.done = true;
        }
        ++finished_;
        loaded_.notify_all();
        index = next_;
    }
}

// Make a graph's session, and bind its runs.
void OnnxRuntimeRunner::load_one(ComponentName graph) {
    const std::string &file = component_of(bundle_.manifest, graph).file;
    const std::string start = std::string(word(graph)) + ": " + name() + " refused this graph (";
    const char *end = "); update ONNX Runtime or rebuild the bundle";
    Owned<OrtSession> &owned = graphs_[static_cast<std::size_t>(graph)].session;
    OrtSession *session = bundle_.opened(bundle_.beside(file), [&] {
        OrtSession *made = nullptr;
        const std::string path = bundle_.path(file);
        library_->check(api_.CreateSession(library_->environment(), path.c_str(), options_.get(), &made), start, end);
        owned.reset(made);
        return made;
    });
    for (Binding &binding : bindings_) {
        if (binding.graph != graph) continue;
        OrtIoBinding *raw = nullptr;
        library_->check(api_.CreateIoBinding(session, &raw), start, end);
        binding.binding.reset(raw);
        for (const Bound &output : binding.outputs) {
            library_->check(api_.BindOutput(raw, output.name.c_str(), output.value.get()), start, end);
        }
        for (auto &[tensor, offset] : binding.unread) {
            tensor.data = unread_.get() + offset;
            library_->check(api_.BindOutput(raw, tensor.name.c_str(), tie(tensor).value.get()), start, end);
        }
        if (copies_inputs_) continue;
        for (const Bound &input : binding.inputs) {
            library_->check(api_.BindInput(raw, input.name.c_str(), input.value.get()), start, end);
        }
    }
}

// Wait until a graph is loaded or has failed to load.
const OnnxRuntimeRunner::Graph &OnnxRuntimeRunner::wait(ComponentName name) {
    const Graph &graph = graphs_[static_cast<std::size_t>(name)];
    std::unique_lock<std::mutex> lock(mutex_);
    loaded_.wait(lock, [&graph] { return graph.done; });
    return graph;
}

// The session of a graph, once it is loaded. Throws the error with which loading failed.
OrtSession *OnnxRuntimeRunner::loaded(ComponentName name) {
    const Graph &graph = wait(name);
    if (graph.fault != nullptr) std::rethrow_exception(graph.fault);
    return graph.session.get();
}

void OnnxRuntimeRunner::run(std::size_t index) {
    const Binding &binding = bindings_[index];
    OrtSession *session = loaded(binding.graph);
    OrtStatus *status = nullptr;
    if (copies_inputs_) {
        for (const Bound &input : binding.inputs) {
            if (status == nullptr)
                status = api_.BindInput(binding.binding.get(), input.name.c_str(), input.value.get());
        }
    }
    if (status == nullptr) status = api_.RunWithBinding(session, run_options_.get(), binding.binding.get());
    library_->check(status, binding.before, binding.after);
}

void OnnxRuntimeRunner::stop() noexcept {
    api_.ReleaseStatus(api_.RunOptionsSetTerminate(run_options_.get()));
}

void OnnxRuntimeRunner::resume() noexcept {
    api_.ReleaseStatus(api_.RunOptionsUnsetTerminate(run_options_.get()));
}

}  // namespace hart_edge
