// UTF-8: is it any, and which characters are in it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace hart_edge::utf8 {

// The index of the first byte that no UTF-8 has there (surrogates and overlong forms count), or npos.
std::size_t first_invalid(std::string_view text);

// The character at `at`, which moves behind it. `text` must be valid.
char32_t next(std::string_view text, std::size_t &at);

// How many characters a valid text has.
std::size_t length(std::string_view text);

// Whether Python's str.strip() takes the character away.
bool is_space(char32_t character);

// A text as Python's repr() writes it: quoted, what cannot be printed escaped. Bytes that are no UTF-8 become \x...
std::string repr(std::string_view text);

}  // namespace hart_edge::utf8
