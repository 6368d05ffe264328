// What a caller gives for one picture, checked, and what fills the buffers that no step writes (runtime/fill.py).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "api/kept_prompts.h"
#include "bundle/manifest.h"
#include "bundle/plan.h"
#include "bundle/settings.h"
#include "hart_edge.h"
#include "text/prompt_tokenizer.h"

namespace hart_edge {

// A prompt, or the context that a caller's own text model has made of one.
struct Inputs {
    PromptTokenizer::Prompt prompt;
    const float *context = nullptr;
    const std::uint8_t *mask = nullptr;
};

// The inputs of every picture that is asked for. tokenizer: of a bundle with a text model. Throws the input error.
std::vector<Inputs> check_inputs(const Manifest &manifest, const std::optional<PromptTokenizer> &tokenizer,
                                 const hart_edge_params &params);

// All that tells a prompt from others: its ids, or a context with its mask.
std::array<KeptPrompts::Bytes, 2> key_of(const Manifest &manifest, const Inputs &inputs);

// Fill a buffer of kind input, setting or noise for one image.
void fill(const Buffer &buffer, const Inputs &inputs, std::uint64_t seed, const Sampling &sampling, void *into);

}  // namespace hart_edge
