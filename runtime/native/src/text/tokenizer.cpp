#include "text/tokenizer.h"

#include <string>
#include <unordered_map>
#include <utility>

#include "errors.h"
#include "text/tokenizer_added.h"
#include "text/tokenizer_bpe.h"
#include "text/tokenizer_file.h"
#include "text/tokenizer_split.h"
#include "text/tokenizer_unicode.h"
#include "text/utf8.h"

namespace hart_edge {

namespace {

constexpr std::size_t MOST_BYTES = std::size_t{1} << 20;  // of a text; one word of that size takes 60 MB of memory

std::string normalize(const std::vector<Normalizer> &steps, std::string_view text) {
    std::string normalized(text);
    for (const Normalizer step : steps) normalized = step == Normalizer::nfc ? nfc(normalized) : lowercase(normalized);
    return normalized;
}

// The added tokens with the ids that the package gives them: that of the vocabulary, or else the next free one after
// it.
class NumberedTokens {
 public:
    NumberedTokens(const TokenizerFile &file, const Bpe &bpe) {
        auto next = static_cast<std::uint32_t>(bpe.size());
        for (const AddedToken &token : file.added_tokens) {
            if (token.content.empty()) continue;
            const auto known = ids_.find(token.content);
            const auto in_vocabulary = bpe.id(token.content);
            const std::uint32_t id = known != ids_.end() ? known->second : in_vocabulary ? *in_vocabulary : next++;
            ids_[token.content] = id;
            tokens_[id] = token;  // of two tokens with one id the last counts
        }
    }

    // The tokens that are matched in the text before it is normalised, or those that are matched afterwards.
    [[nodiscard]] std::vector<AddedTokens::Entry> entries(const std::vector<Normalizer> &steps, bool normalized) const {
        std::vector<AddedTokens::Entry> found;
        for (const auto &[id, token] : tokens_) {
            if (token.normalized != normalized) continue;
            found.push_back({normalized ? normalize(steps, token.content) : token.content, id, token});
        }
        return found;
    }

    [[nodiscard]] const std::unordered_map<std::string, std::uint32_t> &ids() const { return ids_; }

 private:
    std::unordered_map<std::string, std::uint32_t> ids_;
    std::unordered_map<std::uint32_t, AddedToken> tokens_;
};

// A step of pre-tokenization, ready to run.
struct Step {
    bool add_prefix_space;
    std::unique_ptr<const Splitter> splitter;  // nullptr: the piece stays whole
};

std::vector<Step> make_steps(const std::vector<SplitStep> &splits) {
    std::vector<Step> steps;
    for (const SplitStep &split : splits) {
        steps.push_back({split.add_prefix_space,
                         split.pattern == Pattern::none ? nullptr : std::make_unique<const Splitter>(split.pattern)});
    }
    return steps;
}

}  // namespace

struct Tokenizer::Parts {
    explicit Parts(TokenizerFile file)
        : bpe(std::move(file.model)),
          numbered(file, bpe),
          before(numbered.entries(file.normalizers, false)),
          after(numbered.entries(file.normalizers, true)),
          normalizers(std::move(file.normalizers)),
          steps(make_steps(file.splits)),
          prefix(std::move(file.prefix)),
          suffix(std::move(file.suffix)) {}

    // Split a piece by the steps from `step` on, and append the ids of its words.
    void encode_piece(std::string_view piece, std::size_t step, std::vector<std::int64_t> &ids) const {
        if (step == steps.size()) {
            bpe.encode(piece, ids);
            return;
        }
        std::string spaced;
        if (steps[step].add_prefix_space && piece.front() != ' ') {
            spaced.append(" ").append(piece);
            piece = spaced;
        }
        std::vector<std::string_view> words;
        if (steps[step].splitter == nullptr) {
            words.push_back(piece);
        } else {
            steps[step].splitter->split(piece, words);
        }
        for (const std::string_view word : words) encode_piece(word, step + 1, ids);
    }

    Bpe bpe;
    NumberedTokens numbered;
    AddedTokens before, after;  // matched before and after normalisation
    std::vector<Normalizer> normalizers;
    std::vector<Step> steps;
    std::vector<std::uint32_t> prefix, suffix;
};

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::Tokenizer(Tokenizer &&) noexcept = default;
Tokenizer &Tokenizer::operator=(Tokenizer &&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::parse(std::string_view tokenizer_json) {
    return Tokenizer(std::make_unique<const Parts>(read_tokenizer_file(tokenizer_json)));
}

std::vector<std::int64_t> Tokenizer::encode(std::string_view text) const {
    if (text.size() > MOST_BYTES) {
        throw Error(Status::input, "prompt: expected at most " + std::to_string(MOST_BYTES) + " bytes, found " +
                                       std::to_string(text.size()) + "; use a shorter prompt");
    }
    if (const std::size_t at = utf8::first_invalid(text); at != std::string_view::npos) {
        throw Error(Status::input, "prompt: expected UTF-8, found none at byte " + std::to_string(at) +
                                       "; encode the text as UTF-8, without lone surrogates");
    }
    std::vector<std::int64_t> ids(parts_->prefix.begin(), parts_->prefix.end());
    for (const Piece &piece : parts_->before.split(text)) {
        if (piece.id) {
            ids.push_back(*piece.id);
            continue;
        }
        const std::string normalized = normalize(parts_->normalizers, piece.text);
        for (const Piece &part : parts_->after.split(normalized)) {
            if (part.id) {
                ids.push_back(*part.id);
            } else {
                parts_->encode_piece(part.text, 0, ids);
            }
        }
    }
    ids.insert(ids.end(), parts_->suffix.begin(), parts_->suffix.end());
    return ids;
}

std::optional<std::int64_t> Tokenizer::token_id(std::string_view token) const {
    const auto &added = parts_->numbered.ids();
    if (const auto found = added.find(std::string(token)); found != added.end()) return found->second;
    if (const auto found = parts_->bpe.id(token)) return *found;
    return std::nullopt;
}

}  // namespace hart_edge
