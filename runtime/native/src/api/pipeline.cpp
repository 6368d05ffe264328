#include "api/pipeline.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "api/open_runner.h"
#include "bundle/kept.h"
#include "engine/out_of_memory.h"
#include "errors.h"

namespace hart_edge {

namespace {

constexpr std::int64_t MOST_TOKENIZER_BYTES = 256 << 20;

void check_finite(std::uint8_t finite) {
    if (finite != 0) return;
    throw Error(Status::generation,
                "the decoder produced NaN or infinity, so there is no picture; try another seed or a lower cfg_scale, "
                "and if every prompt fails rebuild the bundle at fp32 and report it");
}

std::optional<PromptTokenizer> make_tokenizer(const Bundle &bundle) {
    const Manifest &manifest = bundle.manifest;
    if (!manifest.tokenizer) return std::nullopt;
    const std::int64_t bytes = manifest.files.find(manifest.tokenizer->file)->bytes;
    if (bytes > MOST_TOKENIZER_BYTES) {
        throw Error(Status::bundle, manifest.tokenizer->file + ": expected at most " +
                                        std::to_string(MOST_TOKENIZER_BYTES) + " bytes, found " +
                                        std::to_string(bytes) + "; rebuild the bundle with python -m export.build");
    }
    const std::string definition = read_file(bundle.path(manifest.tokenizer->file), static_cast<std::size_t>(bytes));
    return PromptTokenizer(definition, *manifest.tokenizer, manifest.context_tokens);
}

// Bytes that may be kept of earlier prompts' first scales. An engine on a device computes one in less time than it takes
// to copy it, so none there.
std::size_t room_for_prompts(const Bundle &bundle, std::uint64_t memory, const hart_edge_options &options) {
    const Target target = bundle.manifest.target.name;
    if (target == Target::tensorrt || target == Target::tensorrt_rtx) return 0;
    if (options.memory_limit == 0) return std::numeric_limits<std::size_t>::max();
    return static_cast<std::size_t>(options.memory_limit - std::min(memory, options.memory_limit));
}

}  // namespace

void free_image(hart_edge_image *image) {
    std::free(image);
}  // the pixels follow it in the same block

Pipeline::Pipeline(const std::string &folder, const hart_edge_options &options)
    : options_(checked(options)),
      process_(::getpid()),
      library_(start_library(options)),
      bundle_(open_bundle(folder)),
      prepared_(prepare(bundle_)),
      block_(largest(prepared_)),
      memory_(memory_needed(bundle_, block_.bytes())),
      runner_(make_runner(bundle_, library_, options, memory_)),
      engine_(runner_->name()),
      tokenizer_(make_tokenizer(bundle_)),
      kept_(place(prepared_, block_), room_for_prompts(bundle_, memory_, options)) {
    bind_plans();
    with_shortage_told(memory_, [this] { load(); });
}

void Pipeline::load() {
    std::vector<ComponentName> graphs;  // in the order in which the exact plan first runs them, then the others' own
    std::size_t awaited = 0;            // how many of them the first scale needs
    for (const Prepared &each : prepared_) {
        for (const Step &step : each.plan.steps) {
            if (std::find(graphs.begin(), graphs.end(), step.graph) == graphs.end()) graphs.push_back(step.graph);
            if (awaited == 0 && step.ends_scale) awaited = graphs.size();
        }
    }
    runner_->load(graphs, options_.get().wait_for_all != 0 ? graphs.size() : awaited);
}

Pipeline::Options::Options(const hart_edge_options &options) : options_(options) {
    if (options.onnxruntime_library != nullptr) onnxruntime_ = options.onnxruntime_library;
    if (options.tensorrt_library != nullptr) tensorrt_ = options.tensorrt_library;
}

hart_edge_options Pipeline::Options::get() const {
    hart_edge_options options = options_;
    options.onnxruntime_library = onnxruntime_ ? onnxruntime_->c_str() : nullptr;
    options.tensorrt_library = tensorrt_ ? tensorrt_->c_str() : nullptr;
    return options;
}

std::unique_ptr<Pipeline> Pipeline::reopened() const {
    if (bundle_.manifest.target.name != Target::cpu) {
        throw Error(Status::engine,
                    "expected the process that opened this bundle, found a fork of it, where CUDA cannot be used; open "
                    "the bundle in a process that was not forked from one that uses the GPU");
    }
    if (runner_->is_loading()) {  // a thread of the parent may own its locks
        throw Error(Status::engine,
                    "expected a bundle whose graphs were loaded before the fork, found some that were being loaded; set "
                    "wait_for_all, or open the bundle in the child");
    }
    auto again = std::make_unique<Pipeline>(bundle_.folder, options_.get());
    if (again->bundle_.manifest_text != bundle_.manifest_text) {
        throw Error(Status::bundle, bundle_.folder +
                                        ": expected the bundle that was verified before the fork, found another; the "
                                        "bundle was rebuilt meanwhile; open it again");
    }
    return again;
}

std::vector<Pipeline::Prepared> Pipeline::prepare(const Bundle &bundle) {
    const std::vector<SpeedPlan> found = plans_of(bundle.manifest);
    std::vector<const Plan *> plans;
    for (const SpeedPlan &each : found) plans.push_back(each.plan);
    const std::size_t steps = steps_of_prompt(*plans.front());
    const std::vector<std::string> kept = kept_names(plans, steps);
    std::vector<Prepared> prepared;
    for (const auto &[speed, plan] : found) {
        prepared.emplace_back(speed, *plan, Buffers(bundle, *plan, kept, steps));
    }
    return prepared;
}

std::size_t Pipeline::largest(const std::vector<Prepared> &prepared) {
    std::size_t bytes = 0;
    for (const Prepared &each : prepared) bytes = std::max(bytes, each.buffers.bytes());
    return bytes;
}

std::vector<Placed> Pipeline::place(std::vector<Prepared> &prepared, const Block &block) {
    std::vector<Placed> placed;
    for (Prepared &each : prepared) {
        each.buffers.lie_in(block);
        placed.push_back({&each.plan, &each.buffers});
    }
    return placed;
}

void Pipeline::bind_plans() {
    const Manifest &manifest = bundle_.manifest;
    const std::size_t side = static_cast<std::size_t>(manifest.image_size);
    const std::vector<std::int64_t> shape{1, manifest.image_size, manifest.image_size, 3};
    preview_.resize(side * side * 3 + 1);
    const Tensor pixels{"pixels", Dtype::uint8, shape, preview_.data(), preview_.size() - 1};
    const Tensor finite{"finite", Dtype::boolean, {1}, &preview_.back(), 1};
    runner_->register_memory(block_.data(), block_.bytes(), false);
    for (Prepared &each : prepared_) each.bindings = bind(each.plan, *runner_, each.buffers);
    runner_->register_memory(pixels.data, pixels.bytes, false);
    runner_->register_memory(finite.data, finite.bytes, false);
    for (Prepared &each : prepared_) bind_scales(each, pixels, finite);
}

void Pipeline::bind_scales(Prepared &prepared, const Tensor &pixels, const Tensor &finite) {
    const Buffers &buffers = prepared.buffers;
    for (std::size_t scale = 0; scale < bundle_.manifest.patch_nums.size(); ++scale) {
        const std::string indices = indices_of(prepared.plan, static_cast<std::int64_t>(scale));
        Scale told{nullptr, 0, 0};
        if (!indices.empty()) {
            told.indices = static_cast<std::int64_t *>(buffers[indices]);
            told.count = static_cast<std::uint32_t>(buffers.tensor("indices", indices).bytes / sizeof(std::int64_t));
        }
        const Tensor f_hat = buffers.tensor("f_hat", "f_hat." + std::to_string(scale));
        told.preview = runner_->bind(ComponentName::decoder, std::nullopt, {f_hat}, {pixels, finite});
        prepared.scales.push_back(told);
    }
}

void Pipeline::generate(const hart_edge_params &params, hart_edge_image **images) {
    cancelled_ = false;
    runner_->resume();
    const Sampling sampling = check_settings(bundle_.manifest, params);
    const std::vector<Inputs> inputs = check_inputs(bundle_.manifest, tokenizer_, params);  // all, before one is drawn
    bundle_.require_unwritten();
    std::vector<Image> finished;
    finished.reserve(params.count);
    try {
        with_shortage_told(memory_, [&] {
            for (std::uint32_t picture = 0; picture < params.count; ++picture) {
                finished.push_back(run(inputs[picture], params, sampling, picture));
            }
        });
    } catch (const Error &error) {
        if (error.status() == Status::engine) check_cancelled();  // stopping an engine makes it fail
        throw;
    }
    bundle_.require_unwritten();  // until now the mapped files were those that were verified
    for (std::size_t picture = 0; picture < finished.size(); ++picture) images[picture] = finished[picture].release();
}

class Pipeline::Drawing : public Caller {
 public:
    Drawing(Pipeline &pipeline, const Prepared &prepared, const Inputs &inputs, const hart_edge_params &params,
            const Sampling &sampling, std::uint32_t picture)
        : pipeline_(pipeline),
          prepared_(prepared),
          inputs_(inputs),
          params_(params),
          sampling_(sampling),
          picture_(picture) {}

    [[nodiscard]] std::uint64_t seed() const {
        return params_.seeds == nullptr ? params_.seed : params_.seeds[picture_];
    }

    void fill(const Buffer &buffer, void *into) override {
        hart_edge::fill(buffer, inputs_, seed(), sampling_, into);
    }

    bool knows(std::size_t step) override {
        return pipeline_.kept_.knows(step, *pipeline_.runner_);
    }

    void step_done(std::size_t step) override {
        pipeline_.check_cancelled();
        pipeline_.kept_.step_done(step, *pipeline_.runner_);
    }

    void scale_done(std::size_t scale) override {  // the last one is reported with the picture
        if (scale + 1 < prepared_.scales.size()) pipeline_.tell(prepared_, params_, picture_, scale, nullptr);
    }

 private:
    Pipeline &pipeline_;
    const Prepared &prepared_;
    const Inputs &inputs_;
    const hart_edge_params &params_;
    const Sampling &sampling_;
    std::uint32_t picture_;
};

Pipeline::Image Pipeline::run(const Inputs &inputs, const hart_edge_params &params, const Sampling &sampling,
                              std::uint32_t picture) {
    const auto at_speed = [&sampling](const Prepared &each) { return each.speed == sampling.speed; };
    const auto found = std::find_if(prepared_.begin(), prepared_.end(), at_speed);  // check_settings has made sure
    const Prepared &prepared = *found;
    const Buffers &buffers = prepared.buffers;
    Drawing drawing(*this, prepared, inputs, params, sampling, picture);
    const auto side = static_cast<std::uint32_t>(bundle_.manifest.image_size);
    const std::size_t bytes = std::size_t{side} * side * 3;
    void *block = std::malloc(sizeof(hart_edge_image) + bytes);
    if (block == nullptr) throw std::bad_alloc();
    Image image(static_cast<hart_edge_image *>(block));
    image->width = image->height = side;
    image->pixels = reinterpret_cast<std::uint8_t *>(image.get() + 1);
    image->seed = drawing.seed();
    image->prompt_tokens = static_cast<std::uint32_t>(inputs.prompt.tokens);
    kept_.begin(key_of(bundle_.manifest, inputs), static_cast<std::size_t>(found - prepared_.begin()));
    execute(prepared.plan, *runner_, prepared.bindings, buffers, drawing);
    runner_->download(buffers["finite"], 1);
    check_finite(*static_cast<const std::uint8_t *>(buffers["finite"]));
    runner_->download(buffers["pixels"], bytes);
    std::memcpy(image->pixels, buffers["pixels"], bytes);
    tell(prepared, params, picture, prepared.scales.size() - 1, image->pixels);
    return image;
}

void Pipeline::tell(const Prepared &prepared, const hart_edge_params &params, std::uint32_t picture, std::size_t scale,
                    const std::uint8_t *pixels) {
    if (params.on_scale == nullptr) return;
    const Scale &told = prepared.scales[scale];
    runner_->download(told.indices, told.count * sizeof(std::int64_t));
    if (params.previews != 0 && pixels == nullptr) {
        runner_->run(told.preview);
        check_cancelled();
        runner_->download(&preview_.back(), 1);
        check_finite(preview_.back());
        runner_->download(preview_.data(), preview_.size() - 1);
        pixels = preview_.data();
    }
    hart_edge_progress progress{};
    progress.struct_size = sizeof progress;
    progress.picture = picture;
    progress.pictures = params.count;
    progress.scale = static_cast<std::uint32_t>(scale);
    progress.scales = static_cast<std::uint32_t>(prepared.scales.size());
    progress.tokens = told.count;
    progress.token_ids = told.indices;
    progress.preview = params.previews != 0 ? pixels : nullptr;
    progress.width = progress.height = static_cast<std::uint32_t>(bundle_.manifest.image_size);
    if (params.on_scale(params.user_data, &progress) != 0) cancelled_ = true;
    if (::getpid() != process_) {
        throw Error(Status::engine,
                    "expected the process that began this picture, found a fork of it, which the engine's threads do not "
                    "survive; call hart_edge_generate in the child");
    }
    check_cancelled();
}

void Pipeline::cancel() noexcept {
    ++cancelling_;
    cancelled_ = true;
    runner_->stop();
    cancelled_ = true;  // again: a generate() that has just begun may have cleared it before the engine was stopped
    --cancelling_;
}

void Pipeline::check_cancelled() const {
    while (cancelling_ != 0) {  // lasts a few instructions of cancel()
    }
    if (cancelled_) throw Error(Status::cancelled, "cancelled");
}

void Pipeline::describe(hart_edge_info &info) const {
    const Manifest &manifest = bundle_.manifest;
    const Sampling &sampling = manifest.sampling;
    info.image_size = static_cast<std::uint32_t>(manifest.image_size);
    info.scales = static_cast<std::uint32_t>(manifest.patch_nums.size());
    info.takes_prompt = tokenizer_ ? 1 : 0;
    info.context_tokens = static_cast<std::uint32_t>(manifest.context_tokens);
    info.context_dim = static_cast<std::uint32_t>(manifest.context_dim);
    const std::vector<double> &top_k = sampling.values(Setting::top_k);
    info.cfg_scale = sampling.value(Setting::cfg_scale);
    info.top_p = sampling.value(Setting::top_p);
    info.top_k = static_cast<std::int32_t>(*std::max_element(top_k.begin(), top_k.end()));
    info.smooth = static_cast<std::int32_t>(sampling.value(Setting::smooth));
    info.name = manifest.name.c_str();
    info.precision = word(manifest.precision).data();
    info.target = word(manifest.target.name).data();
    info.engine = engine_.c_str();
    info.memory = memory_;
    info.speed = HART_EDGE_SPEED_EXACT + static_cast<std::int32_t>(sampling.speed);
    for (const Prepared &each : prepared_) info.speeds |= 1U << (HART_EDGE_SPEED_EXACT + static_cast<int>(each.speed));
}

}  // namespace hart_edge
