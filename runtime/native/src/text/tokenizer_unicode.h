// What the tokenizers package makes of characters: their classes, NFC and small letters.
//
// Its tables are of three versions of Unicode (patterns 16, small letters 17, NFC 9), so no library's own tables do:
// tokenizer_tables.h holds what was measured, and utf8proc composes only characters that both know alike. They are those
// of the packages from 0.22.2 on (docs/randomness.md). All texts are valid UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hart_edge {

// Bits of a character's class.
enum CharacterClass : std::uint32_t {
    LETTER = 1,    // \p{L} of a pre-tokenizer's pattern
    NUMBER = 2,    // \p{N}
    SPACE = 4,     // \s, everywhere
    WORD = 8,      // \w, beside an added token with single_word
    COMPOSES = 16  // NFC may change it, move it or join it with a neighbour
};

// The bits of a character.
std::uint32_t character_class(char32_t character);

// The character that begins at or before `at`, which moves to its beginning; `at` must be above 0.
char32_t character_before(std::string_view text, std::size_t &at);

std::string nfc(std::string_view text);

// Character by character, as Rust's char::to_lowercase: no final sigma, and U+0130 becomes two.
std::string lowercase(std::string_view text);

}  // namespace hart_edge
