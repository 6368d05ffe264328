// The text of a tokenizer.json -> its values: the vocabulary and the merges, nearly all of it, in flat memory, and a
// tree of the rest.
//
// A tree of 300,000 tokens and merges would take ten times the file's size. First stage of reading; tokenizer_file
// interprets the values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "bundle/json.h"

namespace hart_edge {

// A piece of a TokenTexts.
struct TokenText {
    std::uint32_t start = 0;
    std::uint32_t size = 0;
};

// Many texts in one string, one after another.
class TokenTexts {
 public:
    TokenText add(std::string_view text) {
        const TokenText added{static_cast<std::uint32_t>(all_.size()), static_cast<std::uint32_t>(text.size())};
        all_.append(text);
        return added;
    }
    [[nodiscard]] std::string_view operator[](TokenText text) const {
        return std::string_view(all_).substr(text.start, text.size);
    }
    [[nodiscard]] std::string_view joined(TokenText first, TokenText second) const {  // second was added after first
        return std::string_view(all_).substr(first.start, first.size + second.size);
    }

 private:
    std::string all_;
};

struct VocabularyEntry {
    TokenText token;
    std::uint32_t id = 0;
};

struct Merge {
    TokenText left, right;  // right was added directly after left
};

struct TokenizerJson {
    json::Value tree;  // model.vocab is an empty object in it, model.merges an empty list
    TokenTexts vocabulary_texts, merge_texts;
    std::vector<VocabularyEntry> vocabulary;
    std::vector<Merge> merges;  // in the order of their rank
};

// Throws Error: Status::bundle for a text that is not JSON, has a key twice, nests deeper than 32, is larger than
// 64 MiB, or whose vocabulary or merges are malformed.
TokenizerJson parse_tokenizer_json(std::string_view text);

// "tokenizer.json: PLACE: expected ..., found ...; copy it again"
[[noreturn]] void refuse_malformed(std::string_view place, std::string_view expected, std::string_view found);

}  // namespace hart_edge
