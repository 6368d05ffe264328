// An opened bundle: prompts, seeds and settings in, pictures out, scale by scale on request (runtime/pipeline.py).
//
// The pictures of a list are made one after another, so memory does not grow with the list, and each equals the picture
// of a call with its prompt and seed only, byte for byte.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/inputs.h"
#include "api/kept_prompts.h"
#include "api/loop.h"
#include "api/settings.h"
#include "bundle/verify.h"
#include "engine/onnxruntime_library.h"
#include "engine/runner.h"
#include "hart_edge.h"
#include "text/prompt_tokenizer.h"

namespace hart_edge {

// Free an image that hart_edge_generate returned.
void free_image(hart_edge_image *image);

class Pipeline {
 public:
    // Open, verify and load the bundle in `folder`.
    Pipeline(const std::string &folder, const hart_edge_options &options);

    // The same bundle with the same options, opened again by a forked child, since engines do not survive a fork.
    // Throws the engine error where the child cannot open it, the bundle error where the bundle has changed since.
    [[nodiscard]] std::unique_ptr<Pipeline> reopened() const;

    // Make params.count pictures, all or none. images: an array of that many pointers.
    void generate(const hart_edge_params &params, hart_edge_image **images);

    // Stop a generate() that runs on another thread, or on this one if a signal handler calls this.
    void cancel() noexcept;

    void describe(hart_edge_info &info) const;

 private:
    class Drawing;  // the loop's Caller for one picture
    // What a callback gets of a scale.
    struct Scale {
        std::int64_t *indices;
        std::uint32_t count;
        std::size_t preview;  // the binding that decodes this scale's f_hat
    };
    // The plan of a speed, ready to run.
    struct Prepared {
        Prepared(Speed its_speed, const Plan &its_plan, Buffers &&its_buffers)
            : speed(its_speed), plan(its_plan), buffers(std::move(its_buffers)) {}
        Speed speed;
        const Plan &plan;
        Buffers buffers;
        std::vector<std::size_t> bindings;
        std::vector<Scale> scales;
    };
    struct Free {
        void operator()(hart_edge_image *image) const { free_image(image); }
    };
    using Image = std::unique_ptr<hart_edge_image, Free>;

    // The options, and the texts that they point to.
    class Options {
     public:
        explicit Options(const hart_edge_options &options);
        [[nodiscard]] hart_edge_options get() const;

     private:
        hart_edge_options options_;
        std::optional<std::string> onnxruntime_, tensorrt_;
    };

    void load();
    void bind_plans();
    void bind_scales(Prepared &prepared, const Tensor &pixels, const Tensor &finite);
    static std::vector<Prepared> prepare(const Bundle &bundle);
    static std::size_t largest(const std::vector<Prepared> &prepared);
    static std::vector<Placed> place(std::vector<Prepared> &prepared, const Block &block);
    Image run(const Inputs &inputs, const hart_edge_params &params, const Sampling &sampling, std::uint32_t picture);
    void tell(const Prepared &prepared, const hart_edge_params &params, std::uint32_t picture, std::size_t scale,
              const std::uint8_t *pixels);
    void check_cancelled() const;

    Options options_;
    const ::pid_t process_;  // the process that opened the bundle
    std::future<std::unique_ptr<OnnxRuntimeLibrary>> library_;  // loads while the bundle is verified
    Bundle bundle_;
    std::vector<Prepared> prepared_;  // by speed, as many as the bundle has
    Block block_;                     // where the buffers of all lie: one picture is drawn at a time
    std::uint64_t memory_;
    std::unique_ptr<Runner> runner_;
    std::string engine_;
    std::optional<PromptTokenizer> tokenizer_;
    KeptPrompts kept_;
    std::vector<std::uint8_t> preview_;  // RGB, then one byte: whether all numbers are finite
    std::atomic<bool> cancelled_{false};
    std::atomic<int> cancelling_{0};  // calls of cancel() in progress
};

}  // namespace hart_edge
