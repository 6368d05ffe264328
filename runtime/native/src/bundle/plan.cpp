#include "bundle/plan.h"

#include <algorithm>

namespace hart_edge {

namespace {

constexpr std::int64_t MOST_EXTENT = 1 << 20;

using json::Value;

Extent read_extent(const Value &value, const Where &where) {
    if (const auto *held = value.as<std::string>(); held != nullptr && (*held == "B" || *held == "2B")) {
        return {0, *held == "B" ? 1 : 2};
    }
    const auto *held = value.as<json::Number>();
    if (held == nullptr || !held->is_integer || !held->fits || held->integer < 0 || held->integer > MOST_EXTENT) {
        refuse(where, "an integer from 0 to 1048576, \"B\" or \"2B\"", show(value));
    }
    return {held->integer, 0};
}

Dimension read_dimension(const Value &value, const Where &where) {
    if (const auto *held = value.as<std::string>()) {
        const bool ascii = std::all_of(held->begin(), held->end(), [](char c) { return c >= 0x20 && c <= 0x7E; });
        if (ascii && !held->empty() && held->size() <= 64) return {0, *held};
    }
    const auto *held = value.as<json::Number>();
    if (held == nullptr || !held->is_integer || !held->fits || held->integer < 0 || held->integer > MOST_EXTENT) {
        refuse(where, "an integer from 0 to 1048576 or a symbol", show(value));
    }
    return {held->integer, ""};
}

std::int64_t read_bytes(const Value &value, const Where &where) {
    return integer(value, where, 0, MOST_BYTES);
}
std::int64_t read_scale(const Value &value, const Where &where) {
    return integer(value, where, 0, 63);
}
std::int64_t read_step_index(const Value &value, const Where &where) {
    return integer(value, where, 0, 9'999);
}

std::optional<std::int64_t> read_optional_scale(const Value &value, const Where &where) {
    if (value.as<json::Null>() != nullptr) return std::nullopt;
    return read_scale(value, where);
}

constexpr std::array<Field<TensorSpec>, 3> TENSOR_SPEC{{
    {"name", [](TensorSpec &into, const Value &value, const Where &where) { into.name = read_name(value, where); }},
    {"dtype",
     [](TensorSpec &into, const Value &value, const Where &where) { into.dtype = choice<Dtype>(value, where); }},
    {"shape",
     [](TensorSpec &into, const Value &value, const Where &where) {
         into.shape = many(value, where, {0, 8}, read_dimension);
     }},
}};

TensorSpec read_tensor_spec(const Value &value, const Where &where) {
    return read(TENSOR_SPEC, value, where);
}

std::string read_line(const Value &value, const Where &where) {
    return text(value, where, 1000);
}

struct EngineSpec {
    std::vector<std::optional<std::int64_t>> profiles;
};

constexpr std::array<Field<EngineSpec>, 1> ENGINE{{
    {"profiles",
     [](EngineSpec &into, const Value &value, const Where &where) {
         into.profiles = many(value, where, {1, 65}, read_optional_scale);
     }},
}};

constexpr std::array<Field<Component>, 13> COMPONENT{{
    {"name",
     [](Component &into, const Value &value, const Where &where) { into.name = choice<ComponentName>(value, where); }},
    {"file", [](Component &into, const Value &value, const Where &where) { into.file = relative_path(value, where); }},
    {"precision",
     [](Component &into, const Value &value, const Where &where) { into.precision = choice<Precision>(value, where); }},
    {"scheme", [](Component &, const Value &value, const Where &where) { text(value, where, 1000); }},
    {"parameters", [](Component &, const Value &value, const Where &where) { read_bytes(value, where); }},
    {"bytes", [](Component &into, const Value &value, const Where &where) { into.bytes = read_bytes(value, where); }},
    {"max_error", [](Component &, const Value &value, const Where &where) { number(value, where, 0, 1e30); }},
    {"worst_tensor", [](Component &, const Value &value, const Where &where) { text(value, where, 1000); }},
    {"inputs",
     [](Component &into, const Value &value, const Where &where) {
         into.inputs = many(value, where, {0, 1000}, read_tensor_spec);
     }},
    {"outputs",
     [](Component &into, const Value &value, const Where &where) {
         into.outputs = many(value, where, {1, 1000}, read_tensor_spec);
     }},
    {"reason", [](Component &, const Value &value, const Where &where) { text(value, where, 10000); }},
    {"float_products",
     [](Component &, const Value &value, const Where &where) {
         many(value, where, {0, 10000}, read_line);
     }},
    {"engine", [](Component &into, const Value &value,
                  const Where &where) { into.profiles = read(ENGINE, value, where).profiles; }},
}};

// Whether a component has a key: an engine has others than a graph.
bool component_has(const json::Object &given, std::string_view key) {
    if (key != "engine") return true;
    const Value *file = json::find(given, "file");
    const auto *named = file == nullptr ? nullptr : file->as<std::string>();
    return named != nullptr && ends_with(*named, ".engine");
}

constexpr std::array<Field<Constant>, 3> CONSTANT{{
    {"dtype", [](Constant &into, const Value &value, const Where &where) { into.dtype = choice<Dtype>(value, where); }},
    {"shape",
     [](Constant &into, const Value &value, const Where &where) {
         into.shape = many(value, where, {0, 8}, [](const Value &entry, const Where &at) {
             return Extent{integer(entry, at, 0, MOST_EXTENT), 0};
         });
     }},
    {"offset", [](Constant &into, const Value &value, const Where &where) { into.offset = read_bytes(value, where); }},
}};

constexpr std::array<Field<Buffer>, 14> BUFFER{{
    {"kind",
     [](Buffer &into, const Value &value, const Where &where) { into.kind = choice<BufferKind>(value, where); }},
    {"dtype", [](Buffer &into, const Value &value, const Where &where) { into.dtype = choice<Dtype>(value, where); }},
    {"shape",
     [](Buffer &into, const Value &value, const Where &where) {
         into.shape = many(value, where, {0, 8}, read_extent);
     }},
    {"bytes_per_image",
     [](Buffer &into, const Value &value, const Where &where) { into.bytes_per_image = read_bytes(value, where); }},
    {"first", [](Buffer &into, const Value &value, const Where &where) { into.first = read_step_index(value, where); }},
    {"last", [](Buffer &into, const Value &value, const Where &where) { into.last = read_step_index(value, where); }},
    {"setting",
     [](Buffer &into, const Value &value, const Where &where) { into.setting = choice<Setting>(value, where); }},
    {"scale",
     [](Buffer &into, const Value &value, const Where &where) { into.scale = read_optional_scale(value, where); }},
    {"constant", [](Buffer &into, const Value &value, const Where &where) { into.constant = read_name(value, where); }},
    {"distribution", [](Buffer &into, const Value &value,
                        const Where &where) { into.distribution = choice<Distribution>(value, where); }},
    {"purpose",
     [](Buffer &into, const Value &value, const Where &where) { into.purpose = integer(value, where, 0, 1); }},
    {"draw", [](Buffer &into, const Value &value, const Where &where) { into.draw = integer(value, where, 0, 1000); }},
    {"cache", [](Buffer &into, const Value &value, const Where &where) { into.cache = read_name(value, where); }},
    {"start",
     [](Buffer &into, const Value &value, const Where &where) { into.start = integer(value, where, 0, MOST_EXTENT); }},
}};

// Whether a buffer of its kind has a key: all have those up to `last`, the others belong to some kinds.
bool buffer_has(const json::Object &given, std::string_view key) {
    static constexpr std::array<std::string_view, 8> FURTHER{"setting", "scale", "constant", "distribution",
                                                             "purpose", "draw",  "cache",    "start"};
    if (std::find(FURTHER.begin(), FURTHER.end(), key) == FURTHER.end()) return true;
    const Value *kind = json::find(given, "kind");
    const auto *named = kind == nullptr ? nullptr : kind->as<std::string>();
    if (named == nullptr) return false;
    if (*named == "setting") return key == "setting" || key == "scale";
    if (*named == "constant") return key == "constant";
    if (*named == "noise" && key == "draw") {  // may be absent
        const Value *draw = json::find(given, key);
        return draw != nullptr && draw->as<json::Null>() == nullptr;
    }
    if (*named == "noise") return key == "distribution" || key == "purpose" || key == "scale";
    if (*named == "rows") return key == "cache" || key == "start";
    return false;
}

Buffer read_buffer(const Value &value, const Where &where) {
    return read(BUFFER, value, where, buffer_has);
}

Wires read_wires(const Value &value, const Where &where) {
    Wires wires;
    for (const auto &[tensor, buffer] : table(value, where, {}, read_name, read_name))
        wires.emplace_back(tensor, buffer);
    return wires;
}

constexpr std::array<Field<Step>, 5> STEP{{
    {"graph",
     [](Step &into, const Value &value, const Where &where) { into.graph = choice<ComponentName>(value, where); }},
    {"scale",
     [](Step &into, const Value &value, const Where &where) { into.scale = read_optional_scale(value, where); }},
    {"inputs", [](Step &into, const Value &value, const Where &where) { into.inputs = read_wires(value, where); }},
    {"outputs", [](Step &into, const Value &value, const Where &where) { into.outputs = read_wires(value, where); }},
    {"ends_scale", [](Step &into, const Value &value, const Where &where) { into.ends_scale = flag(value, where); }},
}};

constexpr std::array<Field<Plan>, 2> PLAN{{
    {"buffers",
     [](Plan &into, const Value &value, const Where &where) {
         into.buffers = table(value, where, {1, 100'000}, read_name, read_buffer);
     }},
    {"steps",
     [](Plan &into, const Value &value, const Where &where) {
         into.steps =
             many(value, where, {1, 10'000}, [](const Value &entry, const Where &at) { return read(STEP, entry, at); });
     }},
}};

}  // namespace

std::size_t itemsize(Dtype dtype) {
    switch (dtype) {
        case Dtype::int64: return 8;
        case Dtype::float32:
        case Dtype::int32: return 4;
        case Dtype::float16: return 2;
        default: return 1;
    }
}

std::int64_t bytes_per_image(Dtype dtype, const Shape &shape) {
    auto bytes = static_cast<std::int64_t>(itemsize(dtype));
    for (const Extent &extent : shape) {
        if (extent.at_one_image() == 0) return 0;
    }
    for (const Extent &extent : shape) {
        if (__builtin_mul_overflow(bytes, extent.at_one_image(), &bytes)) return INT64_MAX;
    }
    return bytes;
}

std::string shape_text(const Shape &shape) {
    std::string line = "[";
    for (const Extent &extent : shape) {
        if (line.size() > 1) line += ", ";
        line += extent.images == 0 ? std::to_string(extent.size) : extent.images == 1 ? "'B'" : "'2B'";
    }
    return line + "]";
}

std::string read_name(const Value &value, const Where &where) {
    return text(value, where, 200, printable, "a name of printable ASCII,", 1);
}

Component read_component(const Value &value, const Where &where) {
    return read(COMPONENT, value, where, component_has);
}
Constant read_constant(const Value &value, const Where &where) {
    return read(CONSTANT, value, where);
}
Plan read_plan(const Value &value, const Where &where) {
    return read(PLAN, value, where);
}

}  // namespace hart_edge
