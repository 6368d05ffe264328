// Doors to the C tokenizer: entry points that only tests use, by ctypes. A call that fails returns its status and
// writes a message.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string_view>

#include "errors.h"
#include "text/tokenizer.h"

#define DOOR extern "C" __attribute__((visibility("default")))

namespace {

using hart_edge::Tokenizer;

constexpr std::size_t MESSAGE = 4096;  // bytes of every message buffer

template <typename Work>
int verdict(char *message, Work work) {
    try {
        work();
        return HART_EDGE_OK;
    } catch (const hart_edge::Error &error) {
        std::snprintf(message, MESSAGE, "%s", error.what());
        return static_cast<int>(error.status());
    } catch (const std::exception &error) {
        std::snprintf(message, MESSAGE, "%s", error.what());
        return HART_EDGE_INTERNAL_ERROR;
    }
}

}  // namespace

DOOR int door_tokenizer_open(const char *json, std::size_t size, Tokenizer **tokenizer, char *message) {
    return verdict(message, [&] {
        *tokenizer = std::make_unique<Tokenizer>(Tokenizer::parse(std::string_view(json, size))).release();
    });
}

DOOR void door_tokenizer_close(Tokenizer *tokenizer) {
    delete tokenizer;
}

// Encode texts that follow each other, of which text k ends before ends[k]; ids are returned likewise, at most `room`.
DOOR int door_tokenizer_encode(const Tokenizer *tokenizer, const char *texts, const std::uint64_t *ends,
                               std::size_t count, std::int64_t *ids, std::size_t room, std::uint64_t *id_ends,
                               char *message) {
    return verdict(message, [&] {
        std::size_t start = 0;
        std::size_t written = 0;
        for (std::size_t k = 0; k < count; ++k) {
            const auto of_text = tokenizer->encode(std::string_view(texts + start, ends[k] - start));
            if (of_text.size() > room - written) throw std::length_error("expected room for more ids");
            std::copy(of_text.begin(), of_text.end(), ids + written);
            written += of_text.size();
            id_ends[k] = written;
            start = ends[k];
        }
    });
}

// The id of a token, or -1.
DOOR std::int64_t door_tokenizer_token_id(const Tokenizer *tokenizer, const char *token, std::size_t size) {
    return tokenizer->token_id(std::string_view(token, size)).value_or(-1);
}
