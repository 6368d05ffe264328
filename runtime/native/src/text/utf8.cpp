#include "text/utf8.h"

#include <cstdio>

namespace hart_edge::utf8 {

namespace {

// How many bytes the character at `at` has, 0 where no valid one begins. Unicode standard, table 3-7.
std::size_t width(std::string_view text, std::size_t at) {
    const auto byte = [&](std::size_t k) {
        return at + k < text.size() ? static_cast<unsigned char>(text[at + k]) : 0U;
    };
    const auto follows = [&](std::size_t k, unsigned low = 0x80, unsigned high = 0xBF) {
        return byte(k) >= low && byte(k) <= high;
    };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    if (first < 0xC2) return 0;
    if (first < 0xE0) return follows(1) ? 2 : 0;
    if (first < 0xF0) {
        const bool second = first == 0xE0 ? follows(1, 0xA0) : first == 0xED ? follows(1, 0x80, 0x9F) : follows(1);
        return second && follows(2) ? 3 : 0;
    }
    if (first > 0xF4) return 0;
    const bool second = first == 0xF0 ? follows(1, 0x90) : first == 0xF4 ? follows(1, 0x80, 0x8F) : follows(1);
    return second && follows(2) && follows(3) ? 4 : 0;
}

}  // namespace

std::size_t first_invalid(std::string_view text) {
    std::size_t at = 0;
    while (at < text.size()) {
        const std::size_t bytes = width(text, at);
        if (bytes == 0) return at;
        at += bytes;
    }
    return std::string_view::npos;
}

char32_t next(std::string_view text, std::size_t &at) {
    const std::size_t bytes = width(text, at);
    const auto byte = [&](std::size_t k) { return static_cast<char32_t>(static_cast<unsigned char>(text[at + k])); };
    char32_t character = byte(0);
    if (bytes > 1) {
        character &= 0xFFU >> (bytes + 1);
        for (std::size_t k = 1; k < bytes; ++k) character = character << 6 | (byte(k) & 0x3F);
    }
    at += bytes == 0 ? 1 : bytes;
    return character;
}

std::size_t length(std::string_view text) {
    std::size_t characters = 0;
    for (const char byte : text) characters += (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
    return characters;
}

bool is_space(char32_t c) {
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string repr(std::string_view text) {
    const bool single = text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
    const char quote = single ? '"' : '\'';
    std::string line(1, quote);
    std::size_t at = 0;
    while (at < text.size()) {
        const std::size_t start = at;
        const bool valid = width(text, at) != 0;
        const char32_t c = next(text, at);
        char escaped[12];
        if (c == '\\' || c == static_cast<unsigned char>(quote)) {
            line += '\\';
            line += static_cast<char>(c);
        } else if (c == '\n' || c == '\r' || c == '\t') {
            line += c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t";
        } else if (!valid || c < 0x20 || (c >= 0x7F && c <= 0xA0) || c == 0xAD) {
            std::snprintf(escaped, sizeof escaped, "\\x%02x", static_cast<unsigned>(c) & 0xFFU);
            line += escaped;
        } else if (c == 0x2028 || c == 0x2029 || (c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E)) {
            std::snprintf(escaped, sizeof escaped, "\\u%04x", static_cast<unsigned>(c));  // would reverse the line
            line += escaped;
        } else {
            line += text.substr(start, at - start);
        }
    }
    return line + quote;
}

}  // namespace hart_edge::utf8
