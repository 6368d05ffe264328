#include "text/tokenizer_bpe.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "bundle/fields.h"

namespace hart_edge {

namespace {

// The character that stands for a byte in a vocabulary, as UTF-8.
struct ByteCharacter {
    char utf8[2];
    std::size_t size;
    [[nodiscard]] std::string_view text() const { return {utf8, size}; }
};

// GPT-2's table: printable Latin-1 stands for itself, the other bytes take the characters from U+0100 on.
constexpr std::array<ByteCharacter, 256> byte_characters() {
    std::array<ByteCharacter, 256> characters{};
    unsigned next = 0x100;
    for (unsigned byte = 0; byte < 256; ++byte) {
        const bool printable = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
        const unsigned character = printable ? byte : next++;
        if (character < 0x80) {
            characters[byte] = {{static_cast<char>(character), 0}, 1};
        } else {
            characters[byte] = {
                {static_cast<char>(0xC0U | character >> 6), static_cast<char>(0x80U | (character & 0x3F))}, 2};
        }
    }
    return characters;
}

constexpr std::array<ByteCharacter, 256> CHARACTERS = byte_characters();

constexpr std::uint32_t NONE = UINT32_MAX;

std::uint64_t both(std::uint32_t left, std::uint32_t right) {
    return std::uint64_t{left} << 32 | right;
}

}  // namespace

// A token of the word that is being encoded. A merge changes the left one and drops the right one.
struct Bpe::Symbol {
    std::uint32_t id;
    std::uint32_t previous, next;  // NONE at the ends
    bool is_gone = false;
};

// Merges the tokens of one word: the pair of lowest rank first, the leftmost of equal ones, until no pair is left.
class Bpe::Merging {
 public:
    Merging(const Bpe &bpe, const std::vector<std::uint32_t> &ids) : bpe_(bpe) {
        const auto count = static_cast<std::uint32_t>(ids.size());
        symbols_.reserve(count);
        for (std::uint32_t i = 0; i < count; ++i) {
            symbols_.push_back({ids[i], i == 0 ? NONE : i - 1, i + 1 == count ? NONE : i + 1});
        }
        for (std::uint32_t i = 0; i + 1 < count; ++i) consider(i);
    }

    void run() {
        while (!queue_.empty()) {
            std::pop_heap(queue_.begin(), queue_.end());
            const Candidate best = queue_.back();
            queue_.pop_back();
            merge(best);
        }
    }

    void append_to(std::vector<std::int64_t> &ids) const {
        for (const Symbol &symbol : symbols_) {
            if (!symbol.is_gone) ids.push_back(symbol.id);
        }
    }

 private:
    struct Candidate {
        std::uint32_t rank, position, merged;
        // The heap's largest candidate is on top: the one to merge first.
        bool operator<(const Candidate &other) const {
            return rank != other.rank ? rank > other.rank : position > other.position;
        }
    };

    void consider(std::uint32_t position) {
        const Symbol &left = symbols_[position];
        if (left.next == NONE) return;
        const Pair *pair = bpe_.find(left.id, symbols_[left.next].id);
        if (pair == nullptr) return;
        queue_.push_back({pair->rank, position, pair->merged});
        std::push_heap(queue_.begin(), queue_.end());
    }

    void merge(const Candidate &best) {
        Symbol &left = symbols_[best.position];
        if (left.is_gone || left.next == NONE) return;
        Symbol &right = symbols_[left.next];
        const Pair *pair = bpe_.find(left.id, right.id);  // a merge may have changed them meanwhile
        if (pair == nullptr || pair->merged != best.merged) return;
        left.id = best.merged;
        left.next = right.next;
        right.is_gone = true;
        if (left.next != NONE) symbols_[left.next].previous = best.position;
        if (left.previous != NONE) consider(left.previous);
        consider(best.position);
    }

    const Bpe &bpe_;
    std::vector<Symbol> symbols_;
    std::vector<Candidate> queue_;
};

Bpe::Bpe(BpeDescription description)
    : vocabulary_(std::move(description.vocabulary_texts), description.vocabulary),
      fuse_unknown_(description.fuse_unknown),
      byte_fallback_(description.byte_fallback),
      ignore_merges_(description.ignore_merges) {
    read_merges(description);
    read_bytes();
    if (description.unknown_token) {
        const bool is_needed =
            std::any_of(bytes_.begin(), bytes_.end(), [](const ByteIds &b) { return b.ids.empty(); });
        unknown_ = is_needed ? required(*description.unknown_token, "model.unk_token") : id(*description.unknown_token);
    }
}

void Bpe::read_merges(const BpeDescription &description) {
    pairs_.reserve(description.merges.size());
    for (const Merge &merge : description.merges) {
        const auto rank = static_cast<std::uint32_t>(pairs_.size());
        const auto known = [&](std::string_view token) {
            const std::optional<std::uint32_t> found = id(token);
            return found ? *found : required(token, "model.merges[" + std::to_string(rank) + "]");
        };
        const TokenTexts &texts = description.merge_texts;
        const std::uint32_t left = known(texts[merge.left]);
        const std::uint32_t right = known(texts[merge.right]);
        pairs_.push_back({both(left, right), rank, known(texts.joined(merge.left, merge.right))});
    }
    // Where a pair is listed twice, the last one counts.
    std::sort(pairs_.begin(), pairs_.end(),
              [](const Pair &a, const Pair &b) { return a.ids != b.ids ? a.ids < b.ids : a.rank > b.rank; });
    pairs_.erase(std::unique(pairs_.begin(), pairs_.end(), [](const Pair &a, const Pair &b) { return a.ids == b.ids; }),
                 pairs_.end());
}

void Bpe::read_bytes() {
    for (unsigned byte = 0; byte < 256; ++byte) {
        ByteIds &begin = bytes_[byte];
        if (const auto token = id(CHARACTERS[byte].text())) {
            begin = {{*token}, true};
            continue;
        }
        if (!byte_fallback_) continue;
        for (const char each : CHARACTERS[byte].text()) {
            char name[8];
            std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(static_cast<unsigned char>(each)));
            const auto token = id(name);
            if (!token) {
                begin.ids.clear();
                break;
            }
            begin.ids.push_back(*token);
        }
    }
}

std::uint32_t Bpe::required(std::string_view token, std::string_view place) const {
    const std::optional<std::uint32_t> found = id(token);
    if (!found) refuse_malformed(place, "tokens of model.vocab", show(token));
    return *found;
}

const Bpe::Pair *Bpe::find(std::uint32_t left, std::uint32_t right) const {
    const std::uint64_t ids = both(left, right);
    const auto found = std::lower_bound(pairs_.begin(), pairs_.end(), ids,
                                        [](const Pair &pair, std::uint64_t wanted) { return pair.ids < wanted; });
    return found == pairs_.end() || found->ids != ids ? nullptr : &*found;
}

// The tokens of a word before any merge: one per byte; for a byte without a token its fallback, else the unknown token,
// else none.
std::vector<std::uint32_t> Bpe::begin(std::string_view word) const {
    std::vector<std::uint32_t> ids;
    ids.reserve(word.size());
    bool unknown_waits = false;  // the unknown token is written before the next known one, or at the end
    for (const char byte : word) {
        const ByteIds &begin = bytes_[static_cast<unsigned char>(byte)];
        const bool is_unknown = begin.ids.empty() && unknown_.has_value();
        if (unknown_waits && (begin.is_token || (is_unknown && !fuse_unknown_))) {
            ids.push_back(*unknown_);
            unknown_waits = false;
        }
        unknown_waits = unknown_waits || is_unknown;
        ids.insert(ids.end(), begin.ids.begin(), begin.ids.end());
    }
    if (unknown_waits) ids.push_back(*unknown_);
    return ids;
}

void Bpe::encode(std::string_view word, std::vector<std::int64_t> &ids) const {
    if (ignore_merges_) {
        std::string token;
        for (const char byte : word) token += CHARACTERS[static_cast<unsigned char>(byte)].text();
        if (const auto whole = id(token)) {
            ids.push_back(*whole);
            return;
        }
    }
    Merging merging(*this, begin(word));
    merging.run();
    merging.append_to(ids);
}

}  // namespace hart_edge
