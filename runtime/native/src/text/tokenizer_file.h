// tokenizer.json -> a checked description of the tokenizer. The only file that knows its key names.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_json.h"

namespace hart_edge {

// A token that is matched in the text as a whole, before the text is split into words.
struct AddedToken {
    std::string content;
    bool single_word = false;  // matches only where no word character stands beside it
    bool lstrip = false;       // takes the spaces before it
    bool rstrip = false;       // takes the spaces after it
    bool normalized = false;   // is normalised, and matched in the normalised text
};

enum class Normalizer : std::uint8_t { nfc, lowercase };

// How a text is split into words: patterns that are known to mean the same in both regular expression libraries, to
// cover every character, and to take time proportional to the text's length.
enum class Pattern : std::uint8_t { none, gpt2, qwen2, llama3 };

// One step of pre-tokenization; each step splits the pieces of the step before.
struct SplitStep {
    bool add_prefix_space = false;
    Pattern pattern = Pattern::none;
};

// The byte-level BPE model.
struct BpeDescription {
    TokenTexts vocabulary_texts, merge_texts;
    std::vector<VocabularyEntry> vocabulary;
    std::vector<Merge> merges;
    std::optional<std::string> unknown_token;
    bool fuse_unknown = false;
    bool byte_fallback = false;
    bool ignore_merges = false;
};

struct TokenizerFile {
    std::vector<AddedToken> added_tokens;
    std::vector<Normalizer> normalizers;
    std::vector<SplitStep> splits;
    BpeDescription model;
    std::vector<std::uint32_t> prefix, suffix;  // ids before and after those of the text
};

// Throws Error: Status::bundle for a malformed file, and for parts that are not supported.
TokenizerFile read_tokenizer_file(std::string_view tokenizer_json);

// The regular expression of a pattern, as files write it.
std::string_view expression(Pattern pattern);

}  // namespace hart_edge
