// Prompt -> token ids: a tokenizer.json, padded to the context's length (runtime/prompt_tokenizer.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "bundle/manifest.h"
#include "text/tokenizer.h"

namespace hart_edge {

// The tokenizer of a tokenizer.json, with the padding that the transformer expects.
class PromptTokenizer {
 public:
    PromptTokenizer(std::string_view definition, const TokenizerSpec &spec, std::int64_t length);

    struct Prompt {
        std::vector<std::int64_t> ids;  // T of them
        std::size_t tokens;             // how many the prompt had before padding or truncation
    };

    // Ids of a prompt; the first T where there are more. Throws the input error for a prompt without tokens.
    [[nodiscard]] Prompt encode(std::string_view prompt) const;

 private:
    Tokenizer tokenizer_;
    std::size_t length_;
    std::int64_t pad_token_id_;
    PaddingSide padding_side_;
    std::int64_t embeddings_;  // token ids that the text model knows; 0: not told
};

}  // namespace hart_edge
