#include "api/inputs.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "api/random.h"
#include "api/settings.h"
#include "errors.h"

namespace hart_edge {

namespace {

// Fill the noise buffer of one image, as docs/randomness.md specifies.
void noise(const Buffer &buffer, std::uint64_t seed, float *into) {
    Stream stream{seed, static_cast<std::uint64_t>(buffer.purpose), static_cast<std::uint64_t>(*buffer.scale), 0};
    const auto numbers = static_cast<std::size_t>(buffer.bytes_per_image) / sizeof(float);
    if (buffer.distribution == Distribution::uniform) return uniform(stream, into, numbers);
    const auto steps = static_cast<std::size_t>(buffer.shape[1].size);
    for (std::size_t step = 0; step < steps; ++step) {
        stream.step = static_cast<std::uint64_t>(buffer.draw.value_or(0)) + step;
        normal(stream, into + step * (numbers / steps), numbers / steps);
    }
}

void check_context(const float *context, const std::uint8_t *mask, std::size_t tokens, std::size_t dim) {
    const bool finite = std::all_of(context, context + tokens * dim, [](float value) { return std::isfinite(value); });
    const bool words = std::any_of(mask, mask + tokens, [](std::uint8_t flag) { return flag == 1; });
    const bool flags = std::all_of(mask, mask + tokens, [](std::uint8_t flag) { return flag <= 1; });
    if (!finite || !words) {
        throw Error(Status::input,
                    "context: expected finite tokens and at least one 1 in context_masks; check your text model");
    }
    if (!flags) throw Error(Status::input, "context_masks: expected 0 and 1, found another number; pass 1 for words");
}

}  // namespace

std::vector<Inputs> check_inputs(const Manifest &manifest, const std::optional<PromptTokenizer> &tokenizer,
                                 const hart_edge_params &params) {
    const auto tokens = static_cast<std::size_t>(manifest.context_tokens);
    const auto dim = static_cast<std::size_t>(manifest.context_dim);
    const bool prompts = params.prompt != nullptr || params.prompts != nullptr;
    const bool contexts = params.contexts != nullptr || params.context_masks != nullptr;
    if (tokenizer && contexts) {
        throw Error(Status::input, "bundle '" + manifest.name +
                                       "' holds a text model: expected a prompt, found a context; pass the text");
    }
    if (!tokenizer && (prompts || params.contexts == nullptr || params.context_masks == nullptr)) {
        throw Error(Status::input, "bundle '" + manifest.name + "' holds no text model: expected contexts (" +
                                       std::to_string(tokens) + ", " + std::to_string(dim) + ") and context_masks (" +
                                       std::to_string(tokens) + ",), found " + (prompts ? "a prompt" : "none") +
                                       "; compute them with your text model, or build from a checkpoint with "
                                       "text_model/");
    }
    if (tokenizer && params.prompts == nullptr && params.count > 1) {
        throw Error(Status::input, "prompts: expected " + std::to_string(params.count) +
                                       " of them, found none; set prompts, or count to 1");
    }
    std::vector<Inputs> checked(params.count);
    for (std::size_t picture = 0; picture < checked.size(); ++picture) {
        Inputs &inputs = checked[picture];
        if (tokenizer) {
            const char *prompt = params.prompts == nullptr ? params.prompt : params.prompts[picture];
            if (prompt == nullptr)
                throw Error(Status::input, "prompt: expected a text, found NULL; pass the text to draw");
            inputs.prompt = tokenizer->encode(prompt);
        } else {
            inputs.context = params.contexts + picture * tokens * dim;
            inputs.mask = params.context_masks + picture * tokens;
            check_context(inputs.context, inputs.mask, tokens, dim);
        }
    }
    return checked;
}

std::array<KeptPrompts::Bytes, 2> key_of(const Manifest &manifest, const Inputs &inputs) {
    if (inputs.context == nullptr) {
        return {{{inputs.prompt.ids.data(), inputs.prompt.ids.size() * sizeof(std::int64_t)}, {}}};
    }
    const auto tokens = static_cast<std::size_t>(manifest.context_tokens);
    const auto dim = static_cast<std::size_t>(manifest.context_dim);
    return {{{inputs.context, tokens * dim * sizeof(float)}, {inputs.mask, tokens}}};
}

void fill(const Buffer &buffer, const Inputs &inputs, std::uint64_t seed, const Sampling &sampling, void *into) {
    if (buffer.kind == BufferKind::noise) return noise(buffer, seed, static_cast<float *>(into));
    if (buffer.kind == BufferKind::setting) return store_setting(sampling, buffer, into);
    const void *from = buffer.dtype == Dtype::int64     ? static_cast<const void *>(inputs.prompt.ids.data())
                       : buffer.dtype == Dtype::float32 ? static_cast<const void *>(inputs.context)
                                                        : static_cast<const void *>(inputs.mask);
    std::memcpy(into, from, static_cast<std::size_t>(buffer.bytes_per_image));
}

}  // namespace hart_edge
