// JSON values in, checked C++ values out: what manifest.cpp and plan.cpp are built on (hart_edge/bundle/fields.py).
//
// An object is declared once, as a list of Field: a key and how its value is read. `read` refuses everything that is
// not declared and says where, in JSON terms.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "bundle/json.h"
#include "errors.h"

namespace hart_edge {

inline constexpr std::string_view REMEDY = "rebuild the bundle with python -m export.build";

// Where a value stands: plan.buffers.x, files["graphs/decoder.onnx"]. It is a chain of objects on the stack, each of
// which refers to its parent and its key; the text is made only when something is refused.
class Where {
 public:
    constexpr Where() = default;  // the top level
    constexpr Where(const Where &parent, std::string_view key) : parent_(&parent), key_(key) {}
    constexpr Where(const Where &parent, std::size_t index) : parent_(&parent), index_(index) {}

    [[nodiscard]] std::string text() const;

 private:
    const Where *parent_ = nullptr;
    std::string_view key_;
    std::size_t index_ = static_cast<std::size_t>(-1);
};

// Throw the bundle error for the value at `where`.
[[noreturn]] void refuse(const Where &where, std::string_view expected, std::string_view found,
                         std::string_view remedy = REMEDY);

bool ends_with(std::string_view text, std::string_view suffix);

// An untrusted value as one short line that is safe to print.
std::string show(const json::Value &value);
std::string show(std::string_view text);

// Leaf readers. Each returns the checked value or refuses it.

using Allowed = bool (*)(char32_t character, std::size_t index);

bool printable(char32_t character, std::size_t index);  // ASCII from space to ~
bool line(char32_t character, std::size_t index);       // no control characters but newline and tab

std::int64_t integer(const json::Value &value, const Where &where, std::int64_t low, std::int64_t high);
double number(const json::Value &value, const Where &where, double low, double high);
bool flag(const json::Value &value, const Where &where);
std::string text(const json::Value &value, const Where &where, std::size_t most, Allowed allowed = line,
                 std::string_view named = "text", std::size_t least = 0);
// A text of at most `most` bytes for which `matches` is true.
std::string text_like(const json::Value &value, const Where &where, std::size_t most, bool (*matches)(std::string_view),
                      std::string_view named);
std::string relative_path(const json::Value &value, const Where &where);  // stays in the folder on every system
std::size_t choice(const json::Value &value, const Where &where, const std::string_view *names, std::size_t count);

// Enumerations have their words in Words<E>::all, in the order of the enumerators.
template <typename E>
struct Words;

template <typename E>
std::string_view word(E value) {
    return Words<E>::all[static_cast<std::size_t>(value)];
}

template <typename E>
E choice(const json::Value &value, const Where &where) {
    return static_cast<E>(choice(value, where, Words<E>::all.data(), Words<E>::all.size()));
}

// Objects, lists and tables.

const json::Object &object(const json::Value &value, const Where &where);

template <typename T>
struct Field {
    std::string_view key;
    void (*read)(T &into, const json::Value &value, const Where &where);
};

// Refuse keys that are missing, then keys that are unknown.
void check_keys(const json::Object &object, const Where &where, const std::vector<std::string_view> &wanted);

// A T from an object that has exactly the keys of `fields`.
template <typename T, std::size_t N>
T read(const std::array<Field<T>, N> &fields, const json::Value &value, const Where &where,
       bool (*wanted)(const json::Object &, std::string_view key) = nullptr) {
    const json::Object &given = object(value, where);
    std::vector<std::string_view> keys;
    for (const Field<T> &field : fields) {
        if (wanted == nullptr || wanted(given, field.key)) keys.push_back(field.key);
    }
    check_keys(given, where, keys);
    T result{};
    for (const json::Member &member : given) {
        for (const Field<T> &field : fields) {
            if (field.key == member.key) field.read(result, member.value, Where(where, member.key));
        }
    }
    return result;
}

struct Length {
    std::size_t low = 0;
    std::size_t high = 100'000;
};

const json::List &bounded_list(const json::Value &value, const Where &where, Length length);
const json::Object &bounded_object(const json::Value &value, const Where &where, Length length);

template <typename Entry>
auto many(const json::Value &value, const Where &where, Length length, Entry entry) {
    std::vector<decltype(entry(value, where))> result;
    const json::List &items = bounded_list(value, where, length);
    result.reserve(items.size());
    for (std::size_t index = 0; index < items.size(); ++index) {
        result.push_back(entry(items[index], Where(where, index)));
    }
    return result;
}

// Named values in the order of the file.
template <typename T>
class Table {
 public:
    void add(std::string name, T value) {
        places_.emplace(name, entries_.size());
        entries_.emplace_back(std::move(name), std::move(value));
    }
    [[nodiscard]] const T *find(const std::string &name) const {
        const auto place = places_.find(name);
        return place == places_.end() ? nullptr : &entries_[place->second].second;
    }
    [[nodiscard]] std::size_t place(const std::string &name) const { return places_.at(name); }
    [[nodiscard]] std::size_t size() const { return entries_.size(); }
    [[nodiscard]] auto begin() const { return entries_.begin(); }
    [[nodiscard]] auto end() const { return entries_.end(); }

 private:
    std::vector<std::pair<std::string, T>> entries_;
    std::unordered_map<std::string, std::size_t> places_;
};

template <typename Key, typename Entry>
auto table(const json::Value &value, const Where &where, Length length, Key key, Entry entry) {
    Table<decltype(entry(value, where))> result;
    for (const json::Member &member : bounded_object(value, where, length)) {
        const Where at(where, member.key);
        std::string name = key(json::Value(member.key), at);
        result.add(std::move(name), entry(member.value, at));
    }
    return result;
}

}  // namespace hart_edge
