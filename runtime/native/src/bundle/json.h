// JSON text -> a tree of values, as strict as the manifest's Python reader: every key once, finite numbers, UTF-8,
// bounded depth and size. Reading a bundle begins here; manifest.cpp and the tokenizer read the tree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace hart_edge::json {

struct Member;
class Value;
using List = std::vector<Value>;
using Object = std::vector<Member>;  // in the order of the text, every key once

struct Null {};

// A number, and how it was written: an integer may have any length, and messages repeat it.
struct Number {
    std::string written;
    double value = 0;
    std::int64_t integer = 0;  // valid where is_integer and fits
    bool is_integer = false;   // written with digits only: 1.0 and 1e2 are not integers
    bool fits = false;         // the integer fits into 64 bits with sign
};

class Value {
 public:
    Value() = default;  // Null
    template <typename T>
    explicit Value(T held) : held_(std::move(held)) {}

    // The value as T, one of Null, bool, Number, std::string, List, Object; nullptr where it has another type.
    template <typename T>
    [[nodiscard]] const T *as() const {
        return std::get_if<T>(&held_);
    }
    template <typename T>
    [[nodiscard]] T *as() {
        return std::get_if<T>(&held_);
    }

    // Replace the value.
    template <typename T>
    void hold(T held) {
        held_.template emplace<T>(std::move(held));
    }

 private:
    std::variant<Null, bool, Number, std::string, List, Object> held_;
};

struct Member {
    std::string key;
    Value value;
};

// The value of a key, or nullptr. Searches from front to back.
const Value *find(const Object &object, std::string_view key);

struct Limits {
    std::size_t bytes;
    std::size_t depth;  // how deep lists and objects may nest
};

// Why a text was refused as JSON.
struct Fault {
    std::string expected;
    std::string found;
};

// Parse the whole of `text`. Throws Fault.
Value parse(std::string_view text, const Limits &limits);

// A text as a JSON string of ASCII characters, as Python's json.dumps writes it.
std::string in_quotes(std::string_view utf8);

}  // namespace hart_edge::json
