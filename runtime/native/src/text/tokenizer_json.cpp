#include "text/tokenizer_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "bundle/fields.h"
#include "errors.h"

namespace hart_edge {

namespace {

using Parser = nlohmann::json;

constexpr std::size_t MOST_BYTES = std::size_t{64} << 20;  // Qwen2's file has 7 MB
constexpr std::size_t MOST_VALUES = 100'000;               // outside the vocabulary and the merges
constexpr std::size_t MOST_DEPTH = 32;

// Which part of the file the parser is in.
enum class Part : std::uint8_t { tree, vocabulary, merges, merge };

class Handler : public Parser::json_sax_t {
 public:
    explicit Handler(TokenizerJson &into) : into_(into) {}

    bool null() override { return add(json::Value(json::Null{}), "null"); }
    bool boolean(bool flag) override { return add(json::Value(flag), flag ? "true" : "false"); }
    bool number_integer(Parser::number_integer_t value) override {  // below 0
        const std::string written = std::to_string(value);
        return add(json::Value(json::Number{written, static_cast<double>(value), value, true, true}), written);
    }
    bool number_unsigned(Parser::number_unsigned_t value) override {
        if (part_ == Part::vocabulary && value <= UINT32_MAX) {
            into_.vocabulary.push_back({token_, static_cast<std::uint32_t>(value)});
            return true;
        }
        const std::string written = std::to_string(value);
        const bool fits = value <= static_cast<Parser::number_unsigned_t>(INT64_MAX);
        const std::int64_t integer = fits ? static_cast<std::int64_t>(value) : 0;
        return add(json::Value(json::Number{written, static_cast<double>(value), integer, true, fits}), written);
    }
    bool number_float(Parser::number_float_t value, const Parser::string_t &written) override {
        return add(json::Value(json::Number{written.substr(0, 100), value, 0, false, false}), written);
    }
    bool string(Parser::string_t &text) override {
        if (part_ == Part::merges) return add_spaced_merge(text);
        if (part_ == Part::merge) {
            if (halves_.size() == 2) refuse_merge("a list of more");
            halves_.push_back(into_.merge_texts.add(text));
            return true;
        }
        if (part_ == Part::vocabulary) refuse_id(show(std::string_view(text)));
        return add(json::Value(std::move(text)), "");
    }
    bool binary(Parser::binary_t & /*never in a JSON text*/) override { return false; }

    bool key(Parser::string_t &text) override {
        if (part_ == Part::vocabulary) {
            token_ = into_.vocabulary_texts.add(text);
        } else {
            open_.back()->as<json::Object>()->push_back(json::Member{std::move(text), json::Value()});
        }
        return true;
    }
    bool start_object(std::size_t /*unknown in a text*/) override {
        if (part_ == Part::tree && is_in_model("vocab")) {
            place(json::Value(json::Object()));
            part_ = Part::vocabulary;
            return true;
        }
        return open(json::Value(json::Object()), "an object");
    }
    bool end_object() override {
        if (part_ == Part::vocabulary) {
            part_ = Part::tree;
            return true;
        }
        std::unordered_set<std::string_view> seen;
        for (const json::Member &member : *open_.back()->as<json::Object>()) {
            if (!seen.insert(member.key).second) {
                refuse_malformed("", "every key once in an object", show(std::string_view(member.key)) + " twice");
            }
        }
        open_.pop_back();
        return true;
    }
    bool start_array(std::size_t /*unknown in a text*/) override {
        if (part_ == Part::tree && is_in_model("merges")) {
            place(json::Value(json::List()));
            part_ = Part::merges;
            return true;
        }
        if (part_ == Part::merges) {
            if (spaced_) refuse_merge("a list, after merges that are texts");
            part_ = Part::merge;
            halves_.clear();
            return true;
        }
        return open(json::Value(json::List()), "a list");
    }
    bool end_array() override {
        if (part_ == Part::merge) {
            if (halves_.size() != 2) refuse_merge("a list of " + std::to_string(halves_.size()));
            into_.merges.push_back({halves_[0], halves_[1]});
            part_ = Part::merges;
        } else if (part_ == Part::merges) {
            part_ = Part::tree;
        } else {
            open_.pop_back();
        }
        return true;
    }
    bool parse_error(std::size_t /*position*/, const std::string & /*token*/, const Parser::exception &error) override {
        std::string what = error.what();
        what = what.substr(std::min(what.size(), what.find("] ") + 2), 200);  // "[json.exception.parse_error.101] "
        std::replace_if(
            what.begin(), what.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; }, '?');
        refuse_malformed("", "JSON", what);
    }

 private:
    // Add a merge "a b", as files written before 2024 have them. Their "#version" lines are comments.
    bool add_spaced_merge(const std::string &text) {
        if (!spaced_ && !into_.merges.empty()) refuse_merge(show(std::string_view(text)) + ", after merges in lists");
        spaced_ = true;
        if (text.compare(0, 8, "#version") == 0) return true;
        const std::size_t space = text.find(' ');
        if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
            refuse_merge(show(std::string_view(text)));
        }
        const TokenText left = into_.merge_texts.add(std::string_view(text).substr(0, space));
        into_.merges.push_back({left, into_.merge_texts.add(std::string_view(text).substr(space + 1))});
        return true;
    }

    // Whether the value that begins is that of this key of `model`.
    [[nodiscard]] bool is_in_model(std::string_view key) const {
        if (open_.size() != 2) return false;
        const auto *file = open_[0]->as<json::Object>();
        const auto *model = open_[1]->as<json::Object>();
        return file != nullptr && model != nullptr && file->back().key == "model" && model->back().key == key;
    }

    json::Value *place(json::Value value) {
        if (++values_ > MOST_VALUES) {
            refuse_malformed("", "at most " + std::to_string(MOST_VALUES) + " values beside vocabulary and merges",
                             "more");
        }
        if (open_.empty()) {
            into_.tree = std::move(value);
            return &into_.tree;
        }
        if (auto *list = open_.back()->as<json::List>()) {
            list->push_back(std::move(value));
            return &list->back();
        }
        json::Value &member = open_.back()->as<json::Object>()->back().value;
        member = std::move(value);
        return &member;
    }

    bool add(json::Value value, std::string_view found) {
        if (part_ == Part::vocabulary) refuse_id(found);
        if (part_ != Part::tree) refuse_merge(found);
        place(std::move(value));
        return true;
    }

    bool open(json::Value value, std::string_view found) {
        if (part_ == Part::vocabulary) refuse_id(found);
        if (part_ != Part::tree) refuse_merge(found);
        if (open_.size() == MOST_DEPTH) {
            refuse_malformed("", "nesting of at most " + std::to_string(MOST_DEPTH) + " levels", "more");
        }
        open_.push_back(place(std::move(value)));  // stays valid: only the innermost container grows
        return true;
    }

    [[noreturn]] void refuse_id(std::string_view found) const {
        const std::string place = "model.vocab[" + show(into_.vocabulary_texts[token_]) + "]";
        refuse_malformed(place, "an id from 0 to 4294967295", found.substr(0, 100));
    }

    [[noreturn]] void refuse_merge(std::string_view found) const {
        const std::string place = "model.merges[" + std::to_string(into_.merges.size()) + "]";
        refuse_malformed(place, "two tokens, as \"a b\" or as [\"a\", \"b\"] throughout", found.substr(0, 100));
    }

    TokenizerJson &into_;
    std::vector<json::Value *> open_;
    std::size_t values_ = 0;
    Part part_ = Part::tree;
    TokenText token_;                // the last key read in the vocabulary
    std::vector<TokenText> halves_;  // of the merge that is being read
    bool spaced_ = false;            // merges are written "a b"
};

}  // namespace

void refuse_malformed(std::string_view place, std::string_view expected, std::string_view found) {
    std::string message = "tokenizer.json: ";
    message.append(place).append(place.empty() ? "" : ": ");
    message.append("expected ").append(expected).append(", found ").append(found).append("; copy it again");
    throw Error(Status::bundle, std::move(message));
}

TokenizerJson parse_tokenizer_json(std::string_view text) {
    if (text.size() > MOST_BYTES) {
        refuse_malformed("", "at most " + std::to_string(MOST_BYTES) + " bytes", std::to_string(text.size()));
    }
    if (text.substr(0, 3) == "\xEF\xBB\xBF") refuse_malformed("", "JSON", "a byte order mark");
    if (text.find('\0') != std::string_view::npos) refuse_malformed("", "JSON", "a NUL byte");
    TokenizerJson parsed;
    Handler handler(parsed);
    Parser::sax_parse(text.begin(), text.end(), &handler);
    return parsed;
}

}  // namespace hart_edge
