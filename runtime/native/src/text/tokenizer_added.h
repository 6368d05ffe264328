// Splits a text at its added tokens.
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
    std::optional<std::uint32_t> id;  // of an added token; nothing for the text between them
};

// Added tokens that are matched in the same pass.
class AddedTokens {
 public:
    struct Entry {
        std::string content;  // as it appears in the text
        std::uint32_t id = 0;
        AddedToken token;
    };

    // Throws Error: Status::bundle where two have the same content.
    explicit AddedTokens(std::vector<Entry> entries);

    // The pieces of a text, none empty; they refer to it. The longest token at a position wins, from left to right.
    [[nodiscard]] std::vector<Piece> split(std::string_view text) const;

 private:
    [[nodiscard]] const Entry *longest_at(std::string_view text, std::size_t at) const;

    std::vector<Entry> entries_;              // sorted by content
    std::array<std::uint32_t, 257> first_{};  // entries_[first_[b]] to entries_[first_[b + 1] - 1] begin with byte b
};

}  // namespace hart_edge
