#include "text/tokenizer_added.h"

#include <algorithm>
#include <utility>

#include "bundle/fields.h"
#include "errors.h"
#include "text/tokenizer_unicode.h"
#include "text/utf8.h"

namespace hart_edge {

namespace {

bool is_word_before(std::string_view text, std::size_t at) {
    return at > 0 && (character_class(character_before(text, at)) & WORD) != 0;
}

bool is_word_after(std::string_view text, std::size_t at) {
    return at < text.size() && (character_class(utf8::next(text, at)) & WORD) != 0;
}

// The start of the run of spaces that ends at `at`, searched no further back than `least`.
std::size_t spaces_begin(std::string_view text, std::size_t at, std::size_t least) {
    while (at > least) {
        std::size_t before = at;
        if ((character_class(character_before(text, before)) & SPACE) == 0) break;
        at = before;
    }
    return at;
}

std::size_t spaces_end(std::string_view text, std::size_t at) {
    while (at < text.size()) {
        std::size_t after = at;
        if ((character_class(utf8::next(text, after)) & SPACE) == 0) break;
        at = after;
    }
    return at;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<Entry> entries) : entries_(std::move(entries)) {
    std::sort(entries_.begin(), entries_.end(), [](const Entry &a, const Entry &b) { return a.content < b.content; });
    for (std::size_t i = 0; i + 1 < entries_.size(); ++i) {
        if (entries_[i].content == entries_[i + 1].content) {
            refuse_malformed("added_tokens", "every token once, as it is normalised",
                             show(std::string_view(entries_[i].content)) + " twice");
        }
    }
    for (const Entry &entry : entries_) ++first_[static_cast<unsigned char>(entry.content[0]) + 1U];
    for (std::size_t b = 1; b < first_.size(); ++b) first_[b] += first_[b - 1];
}

// entries_ is sorted, so the tokens that match the text so far are a range of it, which narrows byte by byte.
const AddedTokens::Entry *AddedTokens::longest_at(std::string_view text, std::size_t at) const {
    const auto byte = static_cast<unsigned char>(text[at]);
    auto low = entries_.begin() + first_[byte];
    auto high = entries_.begin() + first_[byte + 1U];
    const Entry *longest = nullptr;
    for (std::size_t size = 1; low != high; ++size) {
        if (low->content.size() == size) longest = &*low++;
        if (at + size == text.size()) break;
        const auto wanted = static_cast<unsigned char>(text[at + size]);
        const auto next = [size](const Entry &entry) { return static_cast<unsigned char>(entry.content[size]); };
        low = std::partition_point(low, high, [&](const Entry &entry) { return next(entry) < wanted; });
        high = std::partition_point(low, high, [&](const Entry &entry) { return next(entry) == wanted; });
    }
    return longest;
}

std::vector<Piece> AddedTokens::split(std::string_view text) const {
    std::vector<Piece> pieces;
    const auto add = [&](std::size_t start, std::size_t end, std::optional<std::uint32_t> id) {
        if (start < end) pieces.push_back({text.substr(start, end - start), id});
    };
    std::size_t done = 0;                    // the end of the last piece
    std::size_t run_start = 0, run_end = 0;  // the run of spaces that rstrip found last
    for (std::size_t at = 0; at < text.size() && !entries_.empty();) {
        const Entry *entry = longest_at(text, at);
        if (entry == nullptr) {
            ++at;
            continue;
        }
        std::size_t start = at;
        std::size_t end = at + entry->content.size();
        at = end;
        const AddedToken &token = entry->token;
        if (token.single_word && (is_word_before(text, start) || is_word_after(text, end))) continue;
        if (token.lstrip) start = std::max(done, spaces_begin(text, start, done));
        if (token.rstrip) {
            if (end < run_start || end > run_end) {
                run_start = end;
                run_end = spaces_end(text, end);
            }
            end = run_end;
        }
        // A token may itself lie inside the spaces that the token before it took; it is then found there again, as the
        // package does. The package fails only where that token takes the spaces before it too (lstrip).
        if (start > end) {
            throw Error(Status::input, "prompt: expected spaces that one added token takes, found two at byte " +
                                           std::to_string(end) + "; remove " + show(std::string_view(entry->content)));
        }
        if (done < start) add(done, start, std::nullopt);
        add(start, end, entry->id);
        done = end;
    }
    add(done, text.size(), std::nullopt);
    return pieces;
}

}  // namespace hart_edge
