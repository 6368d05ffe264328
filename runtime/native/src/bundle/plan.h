// What a runner executes: the graphs, the named buffers between them, and the steps in their order
// (hart_edge/bundle/plan.py).
//
// The structures are the JSON objects of docs/bundle.md; plan_check.cpp compares a plan with its graphs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bundle/fields.h"
#include "bundle/settings.h"

namespace hart_edge {

enum class Precision { fp32, fp16, int8, int4 };  // the last of a text model alone
enum class Dtype { float32, float16, int64, int32, uint8, int8, boolean };
enum class BufferKind { input, setting, constant, zero, noise, value, cache, rows };
enum class Distribution { uniform, normal };
enum class ComponentName {
    text_model,
    context,
    transformer,
    tokens,
    latent,
    embed,
    select,
    residual,
    decoder,
    encoder
};

template <>
struct Words<Precision> {
    static constexpr std::array<std::string_view, 4> all{"fp32", "fp16", "int8", "int4"};
};
template <>
struct Words<Dtype> {
    static constexpr std::array<std::string_view, 7> all{"float32", "float16", "int64", "int32",
                                                         "uint8",   "int8",    "bool"};
};
template <>
struct Words<BufferKind> {
    static constexpr std::array<std::string_view, 8> all{"input", "setting", "constant", "zero",
                                                         "noise", "value",   "cache",    "rows"};
};
template <>
struct Words<Distribution> {
    static constexpr std::array<std::string_view, 2> all{"uniform", "normal"};
};
template <>
struct Words<ComponentName> {
    static constexpr std::array<std::string_view, 10> all{"text_model", "context", "transformer", "tokens",  "latent",
                                                          "embed",      "select",  "residual",    "decoder", "encoder"};
};

inline constexpr std::int64_t MOST_BYTES = std::int64_t{1} << 40;

// One entry of a buffer's shape: an integer, or a multiple of the number of images per run ("B", "2B").
struct Extent {
    std::int64_t size = 0;
    int images = 0;  // 0: an integer, `size`; 1: "B"; 2: "2B"

    [[nodiscard]] std::int64_t at_one_image() const { return images == 0 ? size : images; }
    friend bool operator==(const Extent &a, const Extent &b) { return a.size == b.size && a.images == b.images; }
    friend bool operator!=(const Extent &a, const Extent &b) { return !(a == b); }
};
using Shape = std::vector<Extent>;

// One entry of a graph tensor's shape: the symbol, or the integer where the symbol is empty.
struct Dimension {
    std::int64_t size = 0;
    std::string symbol;
};

// An input or output of a graph.
struct TensorSpec {
    std::string name;
    Dtype dtype{};
    std::vector<Dimension> shape;
};

// A graph, or the engine built from one. What else the build notes about it (scheme, errors) is checked but not stored.
struct Component {
    ComponentName name{};
    std::string file;
    Precision precision{};
    std::int64_t bytes = 0;
    std::vector<TensorSpec> inputs;
    std::vector<TensorSpec> outputs;
    // Of an engine: for each optimization profile the scale whose steps it serves, or nothing where it serves the steps
    // outside the loop over scales.
    std::optional<std::vector<std::optional<std::int64_t>>> profiles;
};

// A tensor in constants.bin, little-endian, C order.
struct Constant {
    Dtype dtype{};
    Shape shape;  // integers only
    std::int64_t offset = 0;
};

// A named tensor that connects steps. The members after `last` belong to some kinds only.
//
// A cache is memory that grows along axis 0. Steps name rows of it, a range given by `start` and the extent of axis 0;
// they append these rows or read them, in place.
struct Buffer {
    BufferKind kind{};
    Dtype dtype{};
    Shape shape;
    std::int64_t bytes_per_image = 0;
    std::int64_t first = 0;  // indices of the first and last step that touch it
    std::int64_t last = 0;
    Setting setting{};
    std::optional<std::int64_t> scale;
    std::string constant;
    Distribution distribution{};
    std::int64_t purpose = 0;
    std::optional<std::int64_t> draw;  // the first that a noise holds; none: the first of all
    std::string cache;
    std::int64_t start = 0;
};

using Wires = std::vector<std::pair<std::string, std::string>>;  // tensor of the graph, buffer

// One run of a graph. A step without a scale is outside the loop over scales.
struct Step {
    ComponentName graph{};
    std::optional<std::int64_t> scale;
    Wires inputs;
    Wires outputs;
    bool ends_scale = false;
};

struct Plan {
    Table<Buffer> buffers;
    std::vector<Step> steps;
};

std::size_t itemsize(Dtype dtype);

// Bytes of a tensor at B = 1; a number above MOST_BYTES where they do not fit into 64 bits.
std::int64_t bytes_per_image(Dtype dtype, const Shape &shape);

// A shape as messages show it: ['B', 24, 192]
std::string shape_text(const Shape &shape);

// Readers of the manifest's parts.
std::string read_name(const json::Value &value, const Where &where);
Component read_component(const json::Value &value, const Where &where);
Constant read_constant(const json::Value &value, const Where &where);
Plan read_plan(const json::Value &value, const Where &where);

}  // namespace hart_edge
