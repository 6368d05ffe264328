#include "text/prompt_tokenizer.h"

#include <algorithm>

#include "errors.h"
#include "text/utf8.h"

namespace hart_edge {

namespace {

bool is_blank(std::string_view text) {
    std::size_t at = 0;
    while (at < text.size()) {
        if (!utf8::is_space(utf8::next(text, at))) return false;
    }
    return true;
}

}  // namespace

PromptTokenizer::PromptTokenizer(std::string_view definition, const TokenizerSpec &spec, std::int64_t length)
    : tokenizer_(Tokenizer::parse(definition)),
      length_(static_cast<std::size_t>(length)),
      pad_token_id_(spec.pad_token_id),
      padding_side_(spec.padding_side),
      embeddings_(spec.embeddings) {}

PromptTokenizer::Prompt PromptTokenizer::encode(std::string_view prompt) const {
    if (const std::size_t at = utf8::first_invalid(prompt); at != std::string_view::npos) {
        throw Error(Status::input, "prompt: expected UTF-8, found byte " + std::to_string(at) +
                                       " that is none; pass the text in UTF-8");
    }
    if (is_blank(prompt)) {
        throw Error(Status::input,
                    "prompt: expected words, found an empty string; say what to draw, such as 'a red heart'");
    }
    std::vector<std::int64_t> ids = tokenizer_.encode(prompt);
    if (std::all_of(ids.begin(), ids.end(), [this](std::int64_t id) { return id == pad_token_id_; })) {
        throw Error(Status::input,
                    "prompt: " + utf8::repr(prompt) + " has no token of this model's tokenizer; use words it knows");
    }
    Prompt padded{std::vector<std::int64_t>(length_, pad_token_id_), ids.size()};
    ids.resize(std::min(ids.size(), length_));
    const std::int64_t most = *std::max_element(ids.begin(), ids.end());
    if (embeddings_ > 0 && most >= embeddings_) {
        throw Error(Status::input, "prompt: expected token ids below " + std::to_string(embeddings_) +
                                       ", which the text model knows, found " + std::to_string(most) +
                                       "; use other words, or rebuild the bundle with the text model's own tokenizer");
    }
    const std::size_t start = padding_side_ == PaddingSide::left ? length_ - ids.size() : 0;
    std::copy(ids.begin(), ids.end(), padded.ids.begin() + static_cast<std::ptrdiff_t>(start));
    return padded;
}

}  // namespace hart_edge
