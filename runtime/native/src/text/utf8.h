// UTF-8: checks it, reads its characters, and quotes it for messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hart_edge::utf8 {

// The index of the first byte that is not valid UTF-8 (nor are surrogates and overlong forms), or npos.
std::size_t first_invalid(std::string_view text);

// The character at `at`; moves `at` past it. `text` must be valid.
char32_t next(std::string_view text, std::size_t &at);

// How many characters a valid text has.
std::size_t length(std::string_view text);

// Whether Python's str.strip() removes the character.
bool is_space(char32_t character);

// A text as Python's repr() writes it: quoted, with unprintable characters escaped. Invalid bytes become \x...
std::string repr(std::string_view text);

}  // namespace hart_edge::utf8
