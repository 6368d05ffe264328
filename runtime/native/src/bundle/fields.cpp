#include "bundle/fields.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "text/utf8.h"

namespace hart_edge {

namespace {

constexpr std::size_t SHOWN = 60;  // characters of an untrusted value that a message repeats
constexpr std::size_t NO_INDEX = static_cast<std::size_t>(-1);

bool is_identifier(std::string_view key) {
    const auto letter = [](char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_'; };
    if (key.empty() || key.size() > 64 || !letter(key[0])) return false;
    return std::all_of(key.begin(), key.end(), [&](char c) { return letter(c) || (c >= '0' && c <= '9'); });
}

std::string cut(std::string line) {
    return line.size() <= SHOWN ? line : line.substr(0, SHOWN) + "...";
}

std::string short_number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%g", value);
    return text;
}

}  // namespace

std::string Where::text() const {
    if (parent_ == nullptr) return "";
    std::string above = parent_->text();
    if (index_ != NO_INDEX) return above + "[" + std::to_string(index_) + "]";
    if (!is_identifier(key_)) return above + "[" + show(key_) + "]";
    return above.empty() ? std::string(key_) : above + "." + std::string(key_);
}

void refuse(const Where &where, std::string_view expected, std::string_view found, std::string_view remedy) {
    const std::string place = where.text();
    std::string message = "manifest.json: ";
    message.append(place.empty() ? "top level" : place);
    message.append(": expected ").append(expected).append(", found ").append(found).append("; ").append(remedy);
    throw Error(Status::bundle, std::move(message));
}

bool ends_with(std::string_view text, std::string_view suffix) {
    return text.size() >= suffix.size() && text.substr(text.size() - suffix.size()) == suffix;
}

std::string show(const json::Value &value) {
    if (value.as<json::Object>() != nullptr) return "an object";
    if (const auto *items = value.as<json::List>()) return "a list of " + std::to_string(items->size());
    if (const auto *held = value.as<std::string>()) return show(std::string_view(*held));
    if (const auto *held = value.as<json::Number>()) return cut(held->written);
    if (const auto *held = value.as<bool>()) return *held ? "true" : "false";
    return "null";
}

std::string show(std::string_view text) {
    return cut(json::in_quotes(text));
}

bool printable(char32_t character, std::size_t /*index*/) {
    return character >= 0x20 && character <= 0x7E;
}

bool line(char32_t character, std::size_t /*index*/) {
    return character == '\t' || character == '\n' || (character >= 0x20 && character != 0x7F);
}

std::int64_t integer(const json::Value &value, const Where &where, std::int64_t low, std::int64_t high) {
    const auto *held = value.as<json::Number>();
    if (held == nullptr || !held->is_integer || !held->fits || held->integer < low || held->integer > high) {
        refuse(where, "an integer from " + std::to_string(low) + " to " + std::to_string(high), show(value));
    }
    return held->integer;
}

double number(const json::Value &value, const Where &where, double low, double high) {
    const auto *held = value.as<json::Number>();
    if (held == nullptr || !(held->value >= low && held->value <= high)) {
        refuse(where, "a number from " + short_number(low) + " to " + short_number(high), show(value));
    }
    return held->value;
}

bool flag(const json::Value &value, const Where &where) {
    const auto *held = value.as<bool>();
    if (held == nullptr) refuse(where, "true or false", show(value));
    return *held;
}

std::string text(const json::Value &value, const Where &where, std::size_t most, Allowed allowed,
                 std::string_view named, std::size_t least) {
    const auto *held = value.as<std::string>();
    bool good = held != nullptr;
    std::size_t characters = 0;
    for (std::size_t at = 0; good && at < held->size(); ++characters) {
        good = allowed(utf8::next(*held, at), characters);
    }
    if (!good || characters < least || characters > most) {
        refuse(where, std::string(named) + " of at most " + std::to_string(most) + " characters", show(value));
    }
    return *held;
}

std::string text_like(const json::Value &value, const Where &where, std::size_t most, bool (*matches)(std::string_view),
                      std::string_view named) {
    const auto *held = value.as<std::string>();
    if (held == nullptr || held->size() > most || !matches(*held)) {
        refuse(where, std::string(named) + " of at most " + std::to_string(most) + " characters", show(value));
    }
    return *held;
}

std::string relative_path(const json::Value &value, const Where &where) {
    const auto *held = value.as<std::string>();
    bool good = held != nullptr && utf8::length(*held) <= 1000;
    if (good) {
        for (const char c : *held) {  // NUL, backslash, drive letters, NTFS streams
            good = good && static_cast<unsigned char>(c) >= 0x20 && c != 0x7F && c != '\\' && c != ':';
        }
        for (std::size_t start = 0; start <= held->size();) {
            const std::size_t end = std::min(held->find('/', start), held->size());
            const std::string_view part = std::string_view(*held).substr(start, end - start);
            good = good && part != "" && part != "." && part != "..";  // "" also stands for a leading slash
            start = end + 1;
        }
    }
    if (!good) refuse(where, "a path inside the bundle (relative, forward slashes, no \"..\")", show(value));
    return *held;
}

std::size_t choice(const json::Value &value, const Where &where, const std::string_view *names, std::size_t count) {
    std::string expected = "one of ";
    for (std::size_t index = 0; index < count; ++index) {
        if (const auto *held = value.as<std::string>(); held != nullptr && *held == names[index]) return index;
        expected.append(index == 0 ? "" : ", ").append(names[index]);
    }
    refuse(where, expected, show(value));
}

const json::Object &object(const json::Value &value, const Where &where) {
    const auto *held = value.as<json::Object>();
    if (held == nullptr) refuse(where, "an object", show(value));
    return *held;
}

void check_keys(const json::Object &object, const Where &where, const std::vector<std::string_view> &wanted) {
    for (const std::string_view key : wanted) {
        if (json::find(object, key) == nullptr) refuse(Where(where, key), "this key", "none");
    }
    for (const json::Member &member : object) {
        if (std::find(wanted.begin(), wanted.end(), member.key) != wanted.end()) continue;
        std::string expected = "no keys but ";
        for (const std::string_view key : wanted) expected.append(key == wanted[0] ? "" : ", ").append(key);
        refuse(where, expected, show(std::string_view(member.key)));
    }
}

const json::List &bounded_list(const json::Value &value, const Where &where, Length length) {
    const auto *held = value.as<json::List>();
    if (held == nullptr || held->size() < length.low || held->size() > length.high) {
        refuse(where, "a list of " + std::to_string(length.low) + " to " + std::to_string(length.high) + " entries",
               show(value));
    }
    return *held;
}

const json::Object &bounded_object(const json::Value &value, const Where &where, Length length) {
    const json::Object &held = object(value, where);
    if (held.size() < length.low || held.size() > length.high) {
        refuse(where, "an object of " + std::to_string(length.low) + " to " + std::to_string(length.high) + " keys",
               std::to_string(held.size()) + " keys");
    }
    return held;
}

}  // namespace hart_edge
