// Any bytes as a tokenizer.json are read, or refused with a bundle error. A file that is read must encode any text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string_view>

#include "errors.h"
#include "text/tokenizer.h"

namespace {

constexpr std::string_view TEXT = "A red  heart, it's 12\xC2\xBD \xF0\x9F\x98\x80 e\xCC\x81 <x>\r\n ";

std::optional<hart_edge::Tokenizer> read(std::string_view file) {
    try {
        return hart_edge::Tokenizer::parse(file);
    } catch (const hart_edge::Error &error) {
        if (error.status() != hart_edge::Status::bundle) std::abort();
        return std::nullopt;
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    const auto tokenizer = read(std::string_view(reinterpret_cast<const char *>(data), size));
    if (!tokenizer) return 0;
    try {
        if (tokenizer->encode(TEXT) != tokenizer->encode(TEXT)) std::abort();
    } catch (const hart_edge::Error &error) {
        if (error.status() != hart_edge::Status::input) std::abort();
    }
    return 0;
}
