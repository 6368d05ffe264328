#include "bundle/json.h"

#include <cstdio>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "text/utf8.h"

namespace hart_edge::json {

namespace {

using Parser = nlohmann::json;

// Builds the tree from nlohmann's events. Its own tree would lose the order of keys and the digits of long integers.
class Builder : public Parser::json_sax_t {
 public:
    Builder(Value &root, std::size_t depth) : root_(root), depth_(depth) {}

    bool null() override { return add(Null{}); }
    bool boolean(bool flag) override { return add(flag); }
    bool number_integer(Parser::number_integer_t value) override {
        return add(Number{std::to_string(value), static_cast<double>(value), value, true, true});
    }
    bool number_unsigned(Parser::number_unsigned_t value) override {
        const bool fits = value <= static_cast<Parser::number_unsigned_t>(INT64_MAX);
        const std::int64_t integer = fits ? static_cast<std::int64_t>(value) : 0;
        return add(Number{std::to_string(value), static_cast<double>(value), integer, true, fits});
    }
    bool number_float(Parser::number_float_t value, const Parser::string_t &written) override {
        const bool is_integer = written.find_first_of(".eE") == std::string::npos;
        return add(Number{written, value, 0, is_integer, false});
    }
    bool string(Parser::string_t &text) override { return add(std::move(text)); }
    bool binary(Parser::binary_t & /*never in a JSON text*/) override { return false; }
    bool key(Parser::string_t &text) override {
        open_.back()->as<Object>()->push_back(Member{std::move(text), Value()});
        return true;
    }
    bool start_object(std::size_t /*unknown in a text*/) override { return open(Object()); }
    bool start_array(std::size_t /*unknown in a text*/) override { return open(List()); }
    bool end_array() override {
        open_.pop_back();
        return true;
    }
    bool end_object() override {
        std::unordered_set<std::string_view> seen;
        for (const Member &member : *open_.back()->as<Object>()) {
            if (!seen.insert(member.key).second) {
                throw Fault{"every key once in an object", in_quotes(member.key) + " twice"};
            }
        }
        open_.pop_back();
        return true;
    }
    bool parse_error(std::size_t /*position*/, const std::string & /*token*/, const Parser::exception &error) override {
        std::string_view what = error.what();
        what.remove_prefix(std::min(what.size(), what.find("] ") + 2));  // "[json.exception.parse_error.101] "
        throw Fault{"JSON", std::string(what.substr(0, 200))};
    }

 private:
    // Where the next value goes: the root, the end of the innermost list, or the last key of the innermost object.
    Value &place() {
        if (open_.empty()) return root_;
        if (List *list = open_.back()->as<List>()) return list->emplace_back();
        return open_.back()->as<Object>()->back().value;
    }
    template <typename T>
    bool add(T held) {
        place().hold(std::move(held));
        return true;
    }
    template <typename T>
    bool open(T container) {
        if (open_.size() == depth_) throw Fault{"nesting as in docs/bundle.md", "nesting without end"};
        Value &value = place();  // the reference stays valid: only the innermost container grows
        value.hold(std::move(container));
        open_.push_back(&value);
        return true;
    }

    Value &root_;
    std::size_t depth_;
    std::vector<Value *> open_;
};

}  // namespace

const Value *find(const Object &object, std::string_view key) {
    for (const Member &member : object) {
        if (member.key == key) return &member.value;
    }
    return nullptr;
}

Value parse(std::string_view text, const Limits &limits) {
    if (text.size() > limits.bytes) {
        throw Fault{"at most " + std::to_string(limits.bytes) + " bytes", std::to_string(text.size())};
    }
    if (const std::size_t at = utf8::first_invalid(text); at != std::string_view::npos) {
        throw Fault{"UTF-8", "byte " + std::to_string(at) + " that is none"};
    }
    if (text.substr(0, 3) == "\xEF\xBB\xBF") throw Fault{"JSON", "a byte order mark"};  // the library skips it
    if (text.find('\0') != std::string_view::npos) throw Fault{"JSON", "a NUL byte"};   // the library stops at it
    Value root;
    Builder builder(root, limits.depth);
    Parser::sax_parse(text.begin(), text.end(), &builder);
    return root;
}

std::string in_quotes(std::string_view utf8) {
    std::string line = "\"";
    const auto escape = [&line](unsigned unit) {
        char escaped[8];
        std::snprintf(escaped, sizeof escaped, "\\u%04x", unit & 0xFFFFU);
        line += escaped;
    };
    std::size_t at = 0;
    while (at < utf8.size()) {
        const char32_t c = utf8::next(utf8, at);
        switch (c) {
            case '"': line += "\\\""; break;
            case '\\': line += "\\\\"; break;
            case '\n': line += "\\n"; break;
            case '\r': line += "\\r"; break;
            case '\t': line += "\\t"; break;
            case '\b': line += "\\b"; break;
            case '\f': line += "\\f"; break;
            default:
                if (c >= 0x20 && c < 0x7F) {
                    line += static_cast<char>(c);
                } else if (c < 0x10000) {
                    escape(static_cast<unsigned>(c));
                } else {
                    escape(0xD7C0U + static_cast<unsigned>(c >> 10));
                    escape(0xDC00U + static_cast<unsigned>(c & 0x3FF));
                }
        }
    }
    return line + "\"";
}

}  // namespace hart_edge::json
