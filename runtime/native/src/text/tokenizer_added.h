// Added tokens: which stand in a text, and what lies between them.
//
// First stage of encoding. In: a text, or its normalised form. Out: its pieces in order, the tokens with their ids.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_file.h"

namespace hart_edge {

struct Piece {
    std::string_view text;
    std::optional<std::uint32_t> id;  // of the added token that it is
};

// Added tokens that are looked for together.
class AddedTokens {
 public:
    struct Entry {
        std::string content;  // as it stands in the text
        std::uint32_t id = 0;
        AddedToken token;
    };

    // Throws Error: Status::bundle where two have the same content.
    explicit AddedTokens(std::vector<Entry> entries);

    // The pieces of a text, none empty: of all tokens at a place the longest, from left to right. They refer to it.
    [[nodiscard]] std::vector<Piece> split(std::string_view text) const;

 private:
    [[nodiscard]] const Entry *longest_at(std::string_view text, std::size_t at) const;

    std::vector<Entry> entries_;              // by content
    std::array<std::uint32_t, 257> first_{};  // entries_ that begin with byte b: from first_[b] to first_[b + 1]
};

}  // namespace hart_edge
