// Any bytes as a prompt give ids of the vocabulary, the same ones twice, or an input error if they are not UTF-8.
//
// The first byte chooses a tokenizer: with the pattern of Qwen2 or GPT-2, all 256 bytes, a few merges, and added tokens
// that take the spaces beside them, where the stages of encoding interact.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "errors.h"
#include "text/tokenizer.h"
#include "text/tokenizer_file.h"
#include "text/utf8.h"

namespace {

using hart_edge::Pattern;
using hart_edge::Tokenizer;

std::string utf8_of(unsigned character) {
    if (character < 0x80) return {static_cast<char>(character)};
    return {static_cast<char>(0xC0 | character >> 6), static_cast<char>(0x80 | (character & 0x3F))};
}

std::string quoted(std::string_view text) {
    std::string line = "\"";
    for (const char c : text) line.append(c == '"' || c == '\\' ? "\\" : "").push_back(c);
    return line + "\"";
}

// The characters that stand for bytes: printable ones stand for themselves, the others take characters after U+00FF.
std::string vocabulary() {
    std::string line;
    unsigned hidden = 0x100;
    for (unsigned byte = 0; byte < 0x100; ++byte) {
        const bool seen = (byte > 0x20 && byte < 0x7F) || (byte > 0xA0 && byte != 0xAD);
        line += quoted(utf8_of(seen ? byte : hidden++)) + ":" + std::to_string(byte) + ",";
    }
    return line + R"("ab":256,"abc":257,"aa":258,"aaaa":259)";
}

Tokenizer make(Pattern pattern, const std::string &normalizer, const char *normalized) {
    const auto added = [normalized](const char *content, const char *flags) {
        return std::string(R"({"id":0,"special":true,"normalized":)") + normalized + ",\"content\":" + quoted(content) +
               "," + flags + "}";
    };
    const std::string split = R"({"type":"Split","behavior":"Isolated","invert":false,"pattern":{"Regex":)" +
                              quoted(hart_edge::expression(pattern)) + "}}";
    return Tokenizer::parse(
        R"({"version":"1.0","added_tokens":[)" + added("<l>", R"("single_word":false,"lstrip":true,"rstrip":false)") +
        "," + added("<r>", R"("single_word":false,"lstrip":false,"rstrip":true)") + "," +
        added("\xC3\x89", R"("single_word":true,"lstrip":true,"rstrip":true)") + R"(],"normalizer":)" + normalizer +
        R"(,"pre_tokenizer":{"type":"Sequence","pretokenizers":[)" + split +
        R"(,{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":false}]},)" +
        R"("model":{"type":"BPE","vocab":{)" + vocabulary() +
        R"(},"merges":[["a","b"],["ab","c"],["a","a"],["aa","aa"]]}})");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    static const std::array<Tokenizer, 3> tokenizers{
        make(Pattern::qwen2, R"({"type":"NFC"})", "false"),
        make(Pattern::llama3, R"({"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Lowercase"}]})", "true"),
        make(Pattern::gpt2, "null", "false"),
    };
    if (size == 0) return 0;
    const Tokenizer &tokenizer = tokenizers[data[0] % tokenizers.size()];
    const std::string_view text(reinterpret_cast<const char *>(data + 1), size - 1);
    const bool valid = hart_edge::utf8::first_invalid(text) == std::string_view::npos;
    try {
        const std::vector<std::int64_t> ids = tokenizer.encode(text);
        for (const std::int64_t id : ids) {
            if (id < 0 || id > 262) std::abort();  // 260 in the vocabulary and 3 added tokens
        }
        if (!valid || ids != tokenizer.encode(text)) std::abort();
    } catch (const hart_edge::Error &error) {
        if (error.status() != hart_edge::Status::input) std::abort();
    }
    return 0;
}
