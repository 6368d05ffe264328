#include "text/tokenizer_unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <new>
#include <vector>

#include "text/tokenizer_tables.h"
#include "text/utf8.h"

namespace hart_edge {

namespace {

constexpr auto CANONICAL = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
constexpr std::size_t LONGEST_DECOMPOSITION = 4;  // of U+1F82 and others; no canonical one is longer

bool is_ascii(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char byte) { return static_cast<unsigned char>(byte) < 0x80; });
}

void append(std::string &text, char32_t character) {
    utf8proc_uint8_t bytes[4];
    const auto size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(character), bytes);
    text.append(reinterpret_cast<const char *>(bytes), static_cast<std::size_t>(size));
}

void append_decomposed(std::vector<utf8proc_int32_t> &run, char32_t character) {
    utf8proc_int32_t parts[LONGEST_DECOMPOSITION];
    int boundary = 0;
    const auto size = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(character), parts, LONGEST_DECOMPOSITION,
                                              CANONICAL, &boundary);
    run.insert(run.end(), parts, parts + size);
}

int combining_class(utf8proc_int32_t character) {
    return utf8proc_get_property(character)->combining_class;
}

// Sort the marks after each letter into canonical order. utf8proc's own sorting takes quadratic time.
void order_marks(std::vector<utf8proc_int32_t> &run) {
    const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
    for (auto start = run.begin(); start != run.end();) {
        start = std::find_if(start, run.end(), is_mark);
        const auto end = std::find_if_not(start, run.end(), is_mark);
        std::stable_sort(start, end, [](auto a, auto b) { return combining_class(a) < combining_class(b); });
        start = end;
    }
}

// Compose the decomposed run, append it to the text, and empty it.
void append_composed(std::string &text, std::vector<utf8proc_int32_t> &run) {
    if (run.empty()) return;
    order_marks(run);
    const auto size = utf8proc_normalize_utf32(run.data(), static_cast<utf8proc_ssize_t>(run.size()), CANONICAL);
    for (utf8proc_ssize_t i = 0; i < size; ++i) append(text, static_cast<char32_t>(run[static_cast<std::size_t>(i)]));
    run.clear();
}

}  // namespace

std::uint32_t character_class(char32_t character) {
    const auto *after = std::upper_bound(std::begin(CLASS_RUNS), std::end(CLASS_RUNS), character,
                                         [](char32_t c, std::uint32_t run) { return c < run >> 8; });
    return after == std::begin(CLASS_RUNS) ? 0 : after[-1] & 0xFF;
}

char32_t character_before(std::string_view text, std::size_t &at) {
    do {
        --at;
    } while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
    std::size_t end = at;
    return utf8::next(text, end);
}

std::string nfc(std::string_view text) {
    if (is_ascii(text)) return std::string(text);
    std::string composed;
    composed.reserve(text.size());
    std::vector<utf8proc_int32_t> run;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t start = at;
        const char32_t character = utf8::next(text, at);
        if ((character_class(character) & COMPOSES) != 0) {
            append_decomposed(run, character);
        } else {
            append_composed(composed, run);  // nothing composes across such a character
            composed.append(text, start, at - start);
        }
    }
    append_composed(composed, run);
    return composed;
}

std::string lowercase(std::string_view text) {
    std::string small;
    small.reserve(text.size());
    for (std::size_t at = 0; at < text.size();) {
        const char32_t character = utf8::next(text, at);
        if (character == 0x130) {
            small += "i\xCC\x87";  // i and a combining dot
            continue;
        }
        const auto *run = std::lower_bound(std::begin(CASE_RUNS), std::end(CASE_RUNS), character,
                                           [](const CaseRun &each, char32_t c) { return each.last < c; });
        const bool has_small =
            run != std::end(CASE_RUNS) && run->first <= character && (character - run->first) % run->step == 0;
        append(small,
               has_small ? static_cast<char32_t>(static_cast<std::int32_t>(character) + run->distance) : character);
    }
    return small;
}

}  // namespace hart_edge
