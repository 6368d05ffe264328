#define PCRE2_CODE_UNIT_WIDTH 8

#include "text/tokenizer_split.h"

#include <pcre2.h>

#include <new>
#include <string>

#include "errors.h"
#include "text/tokenizer_unicode.h"
#include "text/utf8.h"

namespace hart_edge {

namespace {

// Bounds of one match. Finding a word takes at most a few steps per byte of the text, which has at most 1 MiB.
constexpr std::uint32_t MOST_STEPS = 10'000'000;
constexpr std::uint32_t MOST_HEAP = 32 << 10;  // KiB

// A character beyond ASCII is matched through a stand-in, which every version of PCRE2 puts into the class where the
// tokenizers package has the character. All have two bytes.
constexpr std::string_view LETTER_STAND_IN = "\xC2\xAA";  // feminine ordinal indicator, which has no case
constexpr std::string_view NUMBER_STAND_IN = "\xC2\xB2";  // superscript two
constexpr std::string_view SPACE_STAND_IN = "\xC2\xA0";   // no-break space
constexpr std::string_view OTHER_STAND_IN = "\xC2\xA4";   // currency sign
constexpr std::string_view LONG_S = "\xC5\xBF";           // stands for itself: (?i:'s) matches it as an s
constexpr char32_t LONG_S_CHARACTER = 0x17F;

struct FreeMatch {
    void operator()(pcre2_match_data *match) const { pcre2_match_data_free(match); }
};

std::string_view stand_in(char32_t character) {
    if (character == LONG_S_CHARACTER) return LONG_S;
    const std::uint32_t bits = character_class(character);
    if ((bits & LETTER) != 0) return LETTER_STAND_IN;
    if ((bits & NUMBER) != 0) return NUMBER_STAND_IN;
    return (bits & SPACE) != 0 ? SPACE_STAND_IN : OTHER_STAND_IN;
}

std::string with_stand_ins(std::string_view text) {
    std::string coded;
    coded.reserve(text.size());
    for (std::size_t at = 0; at < text.size();) {
        const char32_t character = utf8::next(text, at);
        if (character < 0x80) {
            coded += static_cast<char>(character);
        } else {
            coded += stand_in(character);
        }
    }
    return coded;
}

// The bytes of `text` that `word`, which is made of stand-ins, stands for. Moves `at` past them.
std::string_view original(std::string_view text, std::size_t &at, std::string_view word) {
    const std::size_t start = at;
    for (std::size_t left = utf8::length(word); left > 0; --left) utf8::next(text, at);
    return text.substr(start, at - start);
}

}  // namespace

void Splitter::Free::operator()(pcre2_code *code) const {
    pcre2_code_free(code);
}
void Splitter::Free::operator()(pcre2_match_context *limits) const {
    pcre2_match_context_free(limits);
}

Splitter::Splitter(Pattern pattern) {
    const std::string_view regex = expression(pattern);
    int error = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex.data()), regex.size(), PCRE2_UTF | PCRE2_UCP, &error,
                              &at, nullptr));
    if (code_ == nullptr && error != PCRE2_ERROR_HEAP_FAILED) {
        throw Error(Status::bundle,
                    "tokenizer.json: expected PCRE2 to compile the pre-tokenizer's pattern, found error " +
                        std::to_string(error) + "; build with a PCRE2 that has Unicode support");
    }
    limits_.reset(pcre2_match_context_create(nullptr));
    if (code_ == nullptr || limits_ == nullptr) throw std::bad_alloc();
    pcre2_set_match_limit(limits_.get(), MOST_STEPS);
    pcre2_set_heap_limit(limits_.get(), MOST_HEAP);
}

void Splitter::split(std::string_view text, std::vector<std::string_view> &words) const {
    const std::unique_ptr<pcre2_match_data, FreeMatch> match(pcre2_match_data_create(1, nullptr));
    if (match == nullptr) throw std::bad_alloc();
    const std::string coded = with_stand_ins(text);
    const auto *subject = reinterpret_cast<PCRE2_SPTR>(coded.data());
    std::size_t done = 0;  // bytes of text
    for (std::size_t at = 0; at < coded.size();) {
        const int found = pcre2_match(code_.get(), subject, coded.size(), at, PCRE2_NO_UTF_CHECK | PCRE2_ANCHORED,
                                      match.get(), limits_.get());
        if (found == PCRE2_ERROR_NOMEMORY) throw std::bad_alloc();
        const PCRE2_SIZE *range = pcre2_get_ovector_pointer(match.get());
        if (found < 0 || range[1] <= at) {
            throw Error(Status::input, "prompt: expected text that can be cut into words, found none at byte " +
                                           std::to_string(done) + " (PCRE2 " + std::to_string(found) +
                                           "); use a shorter prompt");
        }
        words.push_back(original(text, done, std::string_view(coded).substr(at, range[1] - at)));
        at = range[1];
    }
}

}  // namespace hart_edge
