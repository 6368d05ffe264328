// Byte-level BPE (Sennrich et al. 2016): a word's bytes -> ids. Last stage of encoding. Merges in the package's order.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer_file.h"
#include "text/tokenizer_vocabulary.h"

namespace hart_edge {

class Bpe {
 public:
    // Throws Error: Status::bundle where a token is named that is not in the vocabulary, or is there twice.
    explicit Bpe(BpeDescription description);

    // Append the ids of a word, which must not be empty, in O(n log n).
    void encode(std::string_view word, std::vector<std::int64_t> &ids) const;

    [[nodiscard]] std::optional<std::uint32_t> id(std::string_view token) const { return vocabulary_.id(token); }

    [[nodiscard]] std::size_t size() const { return vocabulary_.size(); }

 private:
    struct Pair {           // two neighbours that merge into one token
        std::uint64_t ids;  // left << 32 | right
        std::uint32_t rank;
        std::uint32_t merged;
    };
    struct ByteIds {                     // the tokens of a byte before any merge
        std::vector<std::uint32_t> ids;  // its character's, or else those of its byte_fallback, or none
        bool is_token = false;           // its character is in the vocabulary
    };
    struct Symbol;
    class Merging;

    void read_merges(const BpeDescription &description);
    void read_bytes();
    [[nodiscard]] std::uint32_t required(std::string_view token, std::string_view place) const;
    [[nodiscard]] const Pair *find(std::uint32_t left, std::uint32_t right) const;
    [[nodiscard]] std::vector<std::uint32_t> begin(std::string_view word) const;

    Vocabulary vocabulary_;
    std::vector<Pair> pairs_;  // sorted by ids
    std::array<ByteIds, 256> bytes_;
    std::optional<std::uint32_t> unknown_;
    bool fuse_unknown_, byte_fallback_, ignore_merges_;
};

}  // namespace hart_edge
