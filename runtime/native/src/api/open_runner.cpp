#include "api/open_runner.h"

#include <algorithm>
#include <string>

#include "engine/onnxruntime_runner.h"
#include "engine/out_of_memory.h"
#include "errors.h"
#ifdef HART_EDGE_WITH_TENSORRT
#include "engine/tensorrt_runner.h"
#endif

namespace hart_edge {

namespace {

constexpr int MOST_THREADS = 1024;

std::unique_ptr<Runner> make_tensorrt_runner(const Bundle &bundle, const hart_edge_options &options) {
#ifdef HART_EDGE_WITH_TENSORRT
    const std::string path = options.tensorrt_library == nullptr ? "" : options.tensorrt_library;
    return std::make_unique<TensorRtRunner>(bundle, path, options.device);
#else
    static_cast<void>(options);
    throw Error(Status::engine, "bundle '" + bundle.manifest.name +
                                    "' was built for tensorrt, found a library without it; build the library where "
                                    "NvInferRuntime.h and cuda.h are, or the bundle for cpu");
#endif
}

// The engine library that runs bundles for a target: a new target does not compile until it is decided here.
hart_edge_engine engine_of(Target target) {
    switch (target) {
        case Target::cpu:
        case Target::cuda: return HART_EDGE_ENGINE_ONNXRUNTIME;
        case Target::tensorrt: return HART_EDGE_ENGINE_TENSORRT;
        case Target::tensorrt_rtx: break;
    }
    throw Error(Status::engine, "this library runs bundles for cpu, cuda and tensorrt, found one for " +
                                    std::string(word(target)) + "; use it from Python, or build for tensorrt");
}

}  // namespace

std::uint64_t memory_needed(const Bundle &bundle, std::size_t buffers) {
    const auto side = static_cast<std::uint64_t>(bundle.manifest.image_size);
    std::uint64_t bytes = buffers + bundle.constants.bytes().size() + side * side * 3;  // + a preview
    const std::vector<SpeedPlan> plans = plans_of(bundle.manifest);
    for (const Component &component : bundle.manifest.components) {
        const auto runs = [&component](const Step &step) { return step.graph == component.name; };
        const auto uses = [&runs](const SpeedPlan &each) {
            return std::any_of(each.plan->steps.begin(), each.plan->steps.end(), runs);
        };
        if (std::any_of(plans.begin(), plans.end(), uses)) bytes += static_cast<std::uint64_t>(component.bytes);
    }
    return bytes;
}

const hart_edge_options &checked(const hart_edge_options &options) {
    if (options.threads < 0 || options.threads > MOST_THREADS) {
        throw Error(Status::engine, "threads: expected an integer from 1 to " + std::to_string(MOST_THREADS) +
                                        ", or 0 for one a core, found " + std::to_string(options.threads));
    }
    if (options.engine < HART_EDGE_ENGINE_AUTO || options.engine > HART_EDGE_ENGINE_TENSORRT) {
        throw Error(Status::argument,
                    "engine: expected HART_EDGE_ENGINE_AUTO, HART_EDGE_ENGINE_ONNXRUNTIME or "
                    "HART_EDGE_ENGINE_TENSORRT, found " +
                        std::to_string(options.engine));
    }
    return options;
}

Starting start_library(const hart_edge_options &options) {
    const std::string path = options.onnxruntime_library == nullptr ? "" : options.onnxruntime_library;
    const auto either = std::launch::async | std::launch::deferred;  // deferred if the system refuses a thread
    return std::async(either, [path] { return std::make_unique<OnnxRuntimeLibrary>(path); });
}

std::unique_ptr<Runner> make_runner(const Bundle &bundle, Starting &library, const hart_edge_options &options,
                                    std::uint64_t memory) {
    const Target target = bundle.manifest.target.name;
    const hart_edge_engine engine = engine_of(target);
    if (options.engine != HART_EDGE_ENGINE_AUTO && options.engine != engine) {
        throw Error(Status::engine, "engine: expected the one that runs bundles for " + std::string(word(target)) +
                                        ", found another; set HART_EDGE_ENGINE_AUTO");
    }
    if (options.memory_limit > 0 && memory > options.memory_limit) {
        throw Error(Status::memory, "expected a memory_limit of at least " + std::to_string(memory) +
                                        " bytes for this bundle's weights and buffers, found " +
                                        std::to_string(options.memory_limit) + "; raise it or build at int8");
    }
    if (engine == HART_EDGE_ENGINE_TENSORRT) return make_tensorrt_runner(bundle, options);
    OnnxRuntimeOptions own;
    own.threads = options.threads;
    own.device = options.device;
    own.memory_limit = options.memory_limit;
    return with_shortage_told(memory, [&] { return std::make_unique<OnnxRuntimeRunner>(bundle, library.get(), own); });
}

}  // namespace hart_edge
