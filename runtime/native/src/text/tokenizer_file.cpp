#include "text/tokenizer_file.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "bundle/fields.h"
#include "errors.h"

namespace hart_edge {

namespace {

using json::List;
using json::Object;
using json::Value;

constexpr std::size_t MOST_STEPS = 16;             // of normalisation, and of pre-tokenization
constexpr std::size_t LONGEST_ADDED_TOKEN = 1024;  // bytes; bounds the time of matching one

constexpr std::string_view GPT2 = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr std::string_view QWEN2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view LLAMA3 = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|)"
                                    R"( ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

[[noreturn]] void malformed(const Where &where, std::string_view expected, std::string_view found) {
    refuse_malformed(where.text(), expected, found);
}

[[noreturn]] void unsupported(const Where &where, std::string_view expected, std::string_view found) {
    throw Error(Status::bundle,
                "tokenizer.json: " + where.text() + ": expected " + std::string(expected) + ", found " +
                    std::string(found) +
                    "; the C runtime reads byte-level BPE as Qwen2 has it, run this bundle from Python");
}

template <typename T>
const T &as(const Value &value, const Where &where, std::string_view expected) {
    const T *held = value.as<T>();
    if (held == nullptr) malformed(where, expected, show(value));
    return *held;
}

bool is_absent(const Value *value) {
    return value == nullptr || value->as<json::Null>() != nullptr;
}

const Value &member(const Object &object, const Where &where, std::string_view key) {
    const Value *value = json::find(object, key);
    if (value == nullptr) malformed(Where(where, key), "a value", "none");
    return *value;
}

// Refuse unknown keys, as the package does.
void check_keys(const Object &object, const Where &where, std::initializer_list<std::string_view> known) {
    for (const json::Member &each : object) {
        if (std::find(known.begin(), known.end(), each.key) == known.end()) {
            malformed(Where(where, each.key), "no such key", "one");
        }
    }
}

bool flag(const Object &object, const Where &where, std::string_view key) {
    return as<bool>(member(object, where, key), Where(where, key), "true or false");
}

// A flag that older files do not have; `otherwise` is its value then.
bool flag(const Object &object, const Where &where, std::string_view key, bool otherwise) {
    return json::find(object, key) == nullptr ? otherwise : flag(object, where, key);
}

const std::string &text(const Object &object, const Where &where, std::string_view key) {
    return as<std::string>(member(object, where, key), Where(where, key), "a text");
}

const List &list(const Object &object, const Where &where, std::string_view key) {
    return as<List>(member(object, where, key), Where(where, key), "a list");
}

std::uint32_t id(const Value &value, const Where &where) {
    const auto *held = value.as<json::Number>();
    if (held == nullptr || !held->fits || held->integer < 0 || held->integer > UINT32_MAX) {
        malformed(where, "an id from 0 to 4294967295", show(value));
    }
    return static_cast<std::uint32_t>(held->integer);
}

AddedToken read_added_token(const Value &value, const Where &where) {
    const auto &object = as<Object>(value, where, "an added token");
    id(member(object, where, "id"), Where(where, "id"));  // the package uses the vocabulary and the order instead
    flag(object, where, "special");                       // matters for decoding only
    AddedToken token{text(object, where, "content"), flag(object, where, "single_word"), flag(object, where, "lstrip"),
                     flag(object, where, "rstrip"), flag(object, where, "normalized")};
    if (token.content.size() > LONGEST_ADDED_TOKEN) {
        unsupported(Where(where, "content"), "at most " + std::to_string(LONGEST_ADDED_TOKEN) + " bytes",
                    std::to_string(token.content.size()));
    }
    return token;
}

// Append the steps of a normaliser, or of each normaliser in a sequence.
void read_normalizer(std::vector<Normalizer> &steps, const Value &value, const Where &where) {
    const auto &object = as<Object>(value, where, "a normalizer");
    const std::string &type = text(object, where, "type");
    if (type == "Sequence") {
        const List &each = list(object, where, "normalizers");
        const Where inside(where, "normalizers");
        for (std::size_t i = 0; i < each.size(); ++i) read_normalizer(steps, each[i], Where(inside, i));
    } else if (type == "NFC") {
        steps.push_back(Normalizer::nfc);
    } else if (type == "Lowercase") {
        steps.push_back(Normalizer::lowercase);
    } else {
        unsupported(Where(where, "type"), "NFC, Lowercase or Sequence", show(std::string_view(type)));
    }
    if (steps.size() > MOST_STEPS) unsupported(where, "at most " + std::to_string(MOST_STEPS) + " steps", "more");
}

Pattern read_pattern(const Object &split, const Where &where) {
    const Where inside(where, "pattern");
    const auto &object = as<Object>(member(split, where, "pattern"), inside, "a pattern");
    if (object.size() != 1) malformed(inside, "one of String, Regex", std::to_string(object.size()) + " keys");
    if (object[0].key != "Regex") unsupported(inside, "Regex", show(std::string_view(object[0].key)));
    const std::string &regex = text(object, inside, "Regex");
    for (const Pattern pattern : {Pattern::gpt2, Pattern::qwen2, Pattern::llama3}) {
        if (regex == expression(pattern)) return pattern;
    }
    unsupported(Where(inside, "Regex"), "the pattern of Qwen2, Llama 3 or GPT-2", show(std::string_view(regex)));
}

// Accept only behaviours that keep the words. The patterns leave nothing between words, so these do the same.
void check_behavior(const Object &split, const Where &where) {
    const std::string &behavior = text(split, where, "behavior");
    const bool invert = flag(split, where, "invert");
    if (behavior == "Isolated" || (behavior == "Removed" && invert)) return;
    unsupported(Where(where, "behavior"), "Isolated, or Removed with invert", show(std::string_view(behavior)));
}

// Append the steps of one pre-tokenizer. `bytes` becomes true with ByteLevel, which must be the last.
void read_pre_tokenizer(std::vector<SplitStep> &steps, bool &bytes, const Value &value, const Where &where) {
    const auto &object = as<Object>(value, where, "a pre-tokenizer");
    const std::string &type = text(object, where, "type");
    if (type == "Sequence") {
        const List &each = list(object, where, "pretokenizers");
        const Where inside(where, "pretokenizers");
        for (std::size_t i = 0; i < each.size(); ++i) read_pre_tokenizer(steps, bytes, each[i], Where(inside, i));
        return;
    }
    if (bytes) unsupported(where, "ByteLevel as the last of the sequence", show(std::string_view(type)) + " behind it");
    if (type == "Split") {
        check_behavior(object, where);
        steps.push_back({false, read_pattern(object, where)});
    } else if (type == "ByteLevel") {
        flag(object, where, "trim_offsets");  // matters for offsets only
        const Pattern pattern = flag(object, where, "use_regex", true) ? Pattern::gpt2 : Pattern::none;
        steps.push_back({flag(object, where, "add_prefix_space"), pattern});
        bytes = true;
    } else {
        unsupported(Where(where, "type"), "Split, ByteLevel or Sequence", show(std::string_view(type)));
    }
    if (steps.size() > MOST_STEPS) unsupported(where, "at most " + std::to_string(MOST_STEPS) + " steps", "more");
}

// The ids of a special token of a template.
std::vector<std::uint32_t> read_special_token(const Value &value, const Where &where) {
    const auto &token = as<Object>(value, where, "a special token");
    text(token, where, "id");
    const Where ids_at(where, "ids"), tokens_at(where, "tokens");
    const List &tokens = list(token, where, "tokens");
    for (std::size_t i = 0; i < tokens.size(); ++i) as<std::string>(tokens[i], Where(tokens_at, i), "a text");
    std::vector<std::uint32_t> ids;
    const List &each = list(token, where, "ids");
    for (std::size_t i = 0; i < each.size(); ++i) ids.push_back(id(each[i], Where(ids_at, i)));
    return ids;
}

struct TemplatePiece {
    bool is_special;
    std::string name;  // the special token's, or "A" or "B" for a text
};

std::vector<TemplatePiece> read_pieces(const Object &object, const Where &where, std::string_view key) {
    std::vector<TemplatePiece> pieces;
    const Where inside(where, key);
    const List &each = list(object, where, key);
    for (std::size_t i = 0; i < each.size(); ++i) {
        const Where at(inside, i);
        const auto &piece = as<Object>(each[i], at, "a piece");
        if (piece.size() != 1 || (piece[0].key != "Sequence" && piece[0].key != "SpecialToken")) {
            malformed(at, "one of Sequence, SpecialToken", std::to_string(piece.size()) + " keys");
        }
        const Where inner_at(at, piece[0].key);
        const auto &inner = as<Object>(piece[0].value, inner_at, "an object");
        id(member(inner, inner_at, "type_id"), Where(inner_at, "type_id"));  // matters for pairs of texts only
        pieces.push_back({piece[0].key == "SpecialToken", text(inner, inner_at, "id")});
        if (!pieces.back().is_special && pieces.back().name != "A" && pieces.back().name != "B") {
            malformed(Where(inner_at, "id"), "A or B", show(std::string_view(pieces.back().name)));
        }
    }
    return pieces;
}

// Read the template of a single text: special tokens, the text once, special tokens.
void read_template(TokenizerFile &into, const Object &object, const Where &where) {
    const Where tokens_at(where, "special_tokens");
    const auto &tokens = as<Object>(member(object, where, "special_tokens"), tokens_at, "an object");
    for (const json::Member &token : tokens) read_special_token(token.value, Where(tokens_at, token.key));
    read_pieces(object, where, "pair");
    int texts = 0;
    for (const TemplatePiece &piece : read_pieces(object, where, "single")) {
        if (piece.is_special) {
            const auto ids = read_special_token(member(tokens, tokens_at, piece.name), Where(tokens_at, piece.name));
            std::vector<std::uint32_t> &side = texts == 0 ? into.prefix : into.suffix;
            side.insert(side.end(), ids.begin(), ids.end());
        } else {
            texts += piece.name == "A" ? 1 : 2;
        }
    }
    if (texts != 1) unsupported(Where(where, "single"), "special tokens around one Sequence A", "others");
}

// Read a post-processor. `templated` becomes true with a template: the package allows only one.
void read_post_processor(TokenizerFile &into, bool &templated, const Value &value, const Where &where) {
    const auto &object = as<Object>(value, where, "a post-processor");
    const std::string &type = text(object, where, "type");
    if (type == "Sequence") {
        const List &each = list(object, where, "processors");
        const Where inside(where, "processors");
        for (std::size_t i = 0; i < each.size(); ++i) read_post_processor(into, templated, each[i], Where(inside, i));
    } else if (type == "TemplateProcessing") {
        if (templated) unsupported(where, "one TemplateProcessing", "two");
        read_template(into, object, where);
        templated = true;
    } else if (type == "ByteLevel") {
        flag(object, where, "add_prefix_space");  // both matter for offsets only
        flag(object, where, "trim_offsets");
    } else {
        unsupported(Where(where, "type"), "TemplateProcessing, ByteLevel or Sequence", show(std::string_view(type)));
    }
}

BpeDescription read_model(TokenizerJson &parsed, const Object &object, const Where &where) {
    const std::string &type = text(object, where, "type");
    if (type != "BPE") unsupported(Where(where, "type"), "\"BPE\"", show(std::string_view(type)));
    check_keys(object, where,
               {"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                "byte_fallback", "ignore_merges", "vocab", "merges"});
    as<Object>(member(object, where, "vocab"), Where(where, "vocab"), "an object of tokens and ids");
    list(object, where, "merges");
    if (const Value *dropout = json::find(object, "dropout"); !is_absent(dropout)) {
        if (as<json::Number>(*dropout, Where(where, "dropout"), "a number").value != 0) {
            unsupported(Where(where, "dropout"), "null", show(*dropout));
        }
    }
    for (const std::string_view key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
        const Value *affix = json::find(object, key);
        if (!is_absent(affix) && !as<std::string>(*affix, Where(where, key), "a text").empty()) {
            unsupported(Where(where, key), "null", show(*affix));
        }
    }
    BpeDescription model;
    if (const Value *unknown = json::find(object, "unk_token"); !is_absent(unknown)) {
        model.unknown_token = as<std::string>(*unknown, Where(where, "unk_token"), "a text");
    }
    const auto optional_flag = [&](std::string_view key) {
        return !is_absent(json::find(object, key)) && flag(object, where, key);
    };
    model.fuse_unknown = optional_flag("fuse_unk");
    model.byte_fallback = optional_flag("byte_fallback");
    model.ignore_merges = optional_flag("ignore_merges");
    model.vocabulary_texts = std::move(parsed.vocabulary_texts);
    model.merge_texts = std::move(parsed.merge_texts);
    model.vocabulary = std::move(parsed.vocabulary);
    model.merges = std::move(parsed.merges);
    return model;
}

}  // namespace

std::string_view expression(Pattern pattern) {
    switch (pattern) {
        case Pattern::gpt2: return GPT2;
        case Pattern::qwen2: return QWEN2;
        case Pattern::llama3: return LLAMA3;
        case Pattern::none: break;
    }
    return "";
}

TokenizerFile read_tokenizer_file(std::string_view tokenizer_json) {
    TokenizerJson parsed = parse_tokenizer_json(tokenizer_json);
    const Where top;
    const auto *object = parsed.tree.as<Object>();
    if (object == nullptr) refuse_malformed("", "an object", show(parsed.tree));
    check_keys(*object, top,
               {"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
                "decoder", "model"});
    if (const Value *version = json::find(*object, "version")) {
        const Where where(top, "version");
        const auto &held = as<std::string>(*version, where, "a text");
        if (held != "1.0") unsupported(where, "\"1.0\"", show(std::string_view(held)));
    }
    for (const std::string_view key : {"truncation", "padding", "decoder"}) {  // not used: see tokenizer.h
        if (const Value *value = json::find(*object, key); !is_absent(value)) {
            as<Object>(*value, Where(top, key), "an object or null");
        }
    }
    TokenizerFile file;
    if (const Value *tokens = json::find(*object, "added_tokens")) {
        const Where where(top, "added_tokens");
        const auto &each = as<List>(*tokens, where, "a list");
        for (std::size_t i = 0; i < each.size(); ++i) {
            file.added_tokens.push_back(read_added_token(each[i], Where(where, i)));
        }
    }
    if (const Value *normalizer = json::find(*object, "normalizer"); !is_absent(normalizer)) {
        read_normalizer(file.normalizers, *normalizer, Where(top, "normalizer"));
    }
    bool bytes = false;
    const Where pre_tokenizer(top, "pre_tokenizer");
    if (const Value *value = json::find(*object, "pre_tokenizer"); !is_absent(value)) {
        read_pre_tokenizer(file.splits, bytes, *value, pre_tokenizer);
    }
    if (!bytes) unsupported(pre_tokenizer, "ByteLevel as its last step", "none");
    if (const Value *processor = json::find(*object, "post_processor"); !is_absent(processor)) {
        bool templated = false;
        read_post_processor(file, templated, *processor, Where(top, "post_processor"));
    }
    const Where model(top, "model");
    file.model = read_model(parsed, as<Object>(member(*object, top, "model"), model, "an object"), model);
    return file;
}

}  // namespace hart_edge
