// Any bytes as a manifest.json are read, or refused with a bundle error; nothing else may happen.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "errors.h"
#include "bundle/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    try {
        hart_edge::parse(std::string_view(reinterpret_cast<const char *>(data), size));
    } catch (const hart_edge::Error &error) {
        if (error.status() != hart_edge::Status::bundle) std::abort();
    }
    return 0;
}
