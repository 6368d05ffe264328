// A prompt's token ids, from a tokenizer.json: the counterpart of the tokenizers package under
// runtime/prompt_tokenizer.py.
//
// Supports byte-level BPE as Qwen2 and the shipped model have it, and returns the package's ids, without truncation and
// without padding; padding to the context's length comes after it. Everything else is refused, never approximated.
// tokenizer_json and tokenizer_file read the file; tokenizer_added, _unicode, _split and _bpe are the stages of
// encoding.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

namespace hart_edge {

class Tokenizer {
 public:
    // Read the text of a tokenizer.json. Throws Error: Status::bundle for a file that is malformed, inconsistent, or
    // needs something that is not supported.
    static Tokenizer parse(std::string_view tokenizer_json);

    Tokenizer(Tokenizer &&) noexcept;
    Tokenizer &operator=(Tokenizer &&) noexcept;
    ~Tokenizer();

    // Ids of a text, special tokens included. Any number of threads may call it at once. The time is proportional to
    // the text's length (times the logarithm of its longest word). Throws Error: Status::input for a text that is not
    // UTF-8 or has more than 1 MiB.
    [[nodiscard]] std::vector<std::int64_t> encode(std::string_view text) const;

    // The id of a token as the file spells it ("<pad>"), where it has one.
    [[nodiscard]] std::optional<std::int64_t> token_id(std::string_view token) const;

 private:
    struct Parts;
    explicit Tokenizer(std::unique_ptr<const Parts> parts);

    std::unique_ptr<const Parts> parts_;
};

}  // namespace hart_edge
