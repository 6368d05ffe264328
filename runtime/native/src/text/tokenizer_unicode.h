// How the tokenizers package treats characters: their classes, NFC and lower case.
//
// The package follows three versions of Unicode (patterns 16, lower case 17, NFC 9), so no library's own tables will
// do: tokenizer_tables.h has what was measured, and utf8proc composes only characters that both treat alike. The tables
// are those of the package from 0.22.2 on (docs/randomness.md). All texts are valid UTF-8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace hart_edge {

// Bits of a character's class.
enum CharacterClass : std::uint32_t {
    LETTER = 1,    // \p{L} of a pre-tokenizer's pattern
    NUMBER = 2,    // \p{N}
    SPACE = 4,     // \s, of patterns and of added tokens
    WORD = 8,      // \w, beside an added token with single_word
    COMPOSES = 16  // NFC may change it, move it or join it with a neighbour
};

// The bits of a character's class.
std::uint32_t character_class(char32_t character);

// The character that ends at `at`. Moves `at`, which must be above 0, to its beginning.
char32_t character_before(std::string_view text, std::size_t &at);

std::string nfc(std::string_view text);

// Lower case character by character, as Rust's char::to_lowercase: no final sigma, and U+0130 becomes two characters.
std::string lowercase(std::string_view text);

}  // namespace hart_edge
