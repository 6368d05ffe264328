// What a handle holds: prompts, seeds and settings in, pictures out, scale by scale if wanted (runtime/pipeline.py).
//
// Every picture of a list is made on its own, so memory does not grow with the list and each equals the same one made
// alone, byte for byte.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/loop.h"
#include "api/settings.h"
#include "bundle/verify.h"
#include "engine/onnxruntime_library.h"
#include "engine/runner.h"
#include "hart_edge.h"
#include "text/prompt_tokenizer.h"

namespace hart_edge {

// Free what hart_edge_generate gave out.
void free_image(hart_edge_image *image);

class Pipeline {
 public:
    // Open, verify and load the bundle in `folder`.
    Pipeline(const std::string &folder, const hart_edge_options &options);

    // The same bundle with the same options, opened by this process, a child that was forked: engines do not survive a
    // fork. Throws the engine error where the child cannot open it, the bundle error where it is another by now.
    [[nodiscard]] std::unique_ptr<Pipeline> reopened() const;

    // Make params.count pictures; all or none. images: room for that many.
    void generate(const hart_edge_params &params, hart_edge_image **images);

    // Stop a generate() that another thread runs, or this one where this is called by a signal handler.
    void cancel() noexcept;

    void describe(hart_edge_info &info) const;

 private:
    // The buffers of kind input for one picture.
    struct Inputs {
        PromptTokenizer::Prompt prompt;
        const float *context = nullptr;
        const std::uint8_t *mask = nullptr;
    };
    class Drawing;  // of one picture: what the loop calls
    // What a callback may see of a scale.
    struct Scale {
        std::int64_t *indices;
        std::uint32_t count;
        std::size_t preview;  // binding that decodes its f_hat
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
    void bind_scales();
    [[nodiscard]] std::vector<Inputs> check_inputs(const hart_edge_params &params) const;
    Image run(const Inputs &inputs, const hart_edge_params &params, const Sampling &sampling, std::uint32_t picture);
    void tell(const hart_edge_params &params, std::uint32_t picture, std::size_t scale, const std::uint8_t *pixels);
    void check_cancelled() const;

    Options options_;
    const ::pid_t process_;  // that opened it
    std::future<std::unique_ptr<OnnxRuntimeLibrary>> library_;  // starts while the bundle is verified
    Bundle bundle_;
    Buffers buffers_;
    std::uint64_t memory_;
    std::unique_ptr<Runner> runner_;
    std::string engine_;
    std::optional<PromptTokenizer> tokenizer_;
    std::vector<std::size_t> bindings_;
    std::vector<std::uint8_t> preview_;  // RGB, and whether it is finite at the end
    std::vector<Scale> scales_;
    std::atomic<bool> cancelled_{false};
    std::atomic<int> cancelling_{0};  // cancel() running just now
};

}  // namespace hart_edge
