#include "text/tokenizer_vocabulary.h"

#include <algorithm>
#include <utility>

#include "bundle/fields.h"

namespace hart_edge {

namespace {

std::uint64_t head_of(std::string_view token) {
    std::uint64_t head = 0;
    for (std::size_t i = 0; i < 8; ++i)
        head = head << 8 | (i < token.size() ? static_cast<unsigned char>(token[i]) : 0);
    return head;
}

}  // namespace

Vocabulary::Vocabulary(TokenTexts texts, const std::vector<VocabularyEntry> &entries) : texts_(std::move(texts)) {
    entries_.reserve(entries.size());
    for (const VocabularyEntry &entry : entries) entries_.push_back({head_of(texts_[entry.token]), entry});
    std::sort(entries_.begin(), entries_.end(),
              [this](const Entry &a, const Entry &b) { return is_less(a, b.head, texts_[b.entry.token]); });
    for (std::size_t i = 0; i + 1 < entries_.size(); ++i) {
        const std::string_view token = texts_[entries_[i].entry.token];
        if (token == texts_[entries_[i + 1].entry.token]) {
            refuse_malformed("model.vocab", "every token once", show(token) + " twice");
        }
    }
}

std::optional<std::uint32_t> Vocabulary::id(std::string_view token) const {
    const std::uint64_t head = head_of(token);
    const auto found = std::partition_point(entries_.begin(), entries_.end(),
                                            [&](const Entry &entry) { return is_less(entry, head, token); });
    if (found == entries_.end() || texts_[found->entry.token] != token) return std::nullopt;
    return found->entry.id;
}

bool Vocabulary::is_less(const Entry &entry, std::uint64_t head, std::string_view token) const {
    return entry.head != head ? entry.head < head : texts_[entry.entry.token] < token;
}

}  // namespace hart_edge
