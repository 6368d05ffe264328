// The vocabulary of a model: tokens and their ids, sorted, so that no choice of tokens makes a look-up slow.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "text/tokenizer_json.h"

namespace hart_edge {

class Vocabulary {
 public:
    // Throws Error: Status::bundle where a token is there twice.
    Vocabulary(TokenTexts texts, const std::vector<VocabularyEntry> &entries);

    [[nodiscard]] std::optional<std::uint32_t> id(std::string_view token) const;

    [[nodiscard]] std::size_t size() const { return entries_.size(); }

 private:
    struct Entry {
        std::uint64_t head;  // the first eight bytes as a number, which decide most comparisons
        VocabularyEntry entry;
    };

    [[nodiscard]] bool is_less(const Entry &entry, std::uint64_t head, std::string_view token) const;

    TokenTexts texts_;
    std::vector<Entry> entries_;  // sorted by head, then by token
};

}  // namespace hart_edge
