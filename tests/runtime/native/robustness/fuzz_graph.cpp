// Any bytes as an ONNX graph are accepted, or refused with a bundle error; nothing else may happen.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "errors.h"
#include "bundle/onnx_guard.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {
    try {
        const std::string_view graph(reinterpret_cast<const char *>(data), size);
        hart_edge::check_graph("graph.onnx", graph, {{"text_model.onnx.data", 1024}});
    } catch (const hart_edge::Error &error) {
        if (error.status() != hart_edge::Status::bundle) std::abort();
    }
    return 0;
}
