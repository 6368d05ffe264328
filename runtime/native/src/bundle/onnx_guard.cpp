#include "bundle/onnx_guard.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <optional>
#include <vector>

#include "errors.h"
#include "text/utf8.h"

namespace hart_edge {

namespace {

constexpr std::array<std::string_view, 3> DOMAINS{"", "ai.onnx", "com.microsoft"};
// The operators that our export and calibration write. EPContext is not one of them: it makes engines open other files.
constexpr std::array<std::string_view, 14> MICROSOFT_OPERATORS{
    "DequantizeLinear", "DynamicQuantizeMatMul", "FusedMatMul", "MatMulIntegerToFloat",
    "MatMulNBits",      "MultiHeadAttention",    "QGemm",       "QLinearAdd",
    "QLinearConv",      "QLinearMatMul",         "QLinearMul",  "QLinearSigmoid",
    "QLinearSoftmax",   "QuantizeLinear"};
constexpr int MOST_DEPTH = 64;           // of nested messages; a subgraph adds three
constexpr int MOST_FIELDS = 5'000'000;   // of all messages together; bounds the time that a hostile file can cost
constexpr std::size_t MOST_TEXT = 4096;  // bytes of a text that a rule below reads
constexpr std::size_t MOST_NUMBER = 26;  // the largest field number below
constexpr std::array<std::string_view, 4> EXTERNAL_KEYS{"location", "offset", "length", "checksum"};
constexpr const char *REMEDY = "do not load it; rebuild the bundle with python -m export.build";

// Every message of onnx.proto that a model can hold: field number, kind, * where it may repeat.
// int: varint; f32, f64: fixed width; raw: bytes that are skipped; text: bytes that a rule reads; else a message.
// The table is that of hart_edge/bundle/onnx_guard.py, whose test compares it with the onnx package.
constexpr std::string_view PROTO = R"(
Model       1 int, 2 raw, 3 raw, 4 raw, 5 int, 6 raw, 7 Graph, 8 Opset*, 14 Pair*, 20 Training*, 25 Function*,
            26 Device*
Graph       1 Node*, 2 raw, 5 Tensor*, 10 raw, 11 Value*, 12 Value*, 13 Value*, 14 Quantization*, 15 Sparse*,
            16 Pair*
Node        1 raw*, 2 raw*, 3 text, 4 text, 5 Attribute*, 6 raw, 7 text, 8 text, 9 Pair*, 10 NodeDevice*
Attribute   1 raw, 2 f32, 3 int, 4 raw, 5 Tensor, 6 Graph, 7 f32*, 8 int*, 9 raw*, 10 Tensor*, 11 Graph*,
            13 raw, 14 Type, 15 Type*, 20 int, 21 raw, 22 Sparse, 23 Sparse*
Tensor      1 int*, 2 int, 3 Segment, 4 f32*, 5 int*, 6 raw*, 7 int*, 8 text, 9 raw, 10 f64*, 11 int*, 12 raw,
            13 Pair*, 14 int, 16 Pair*
Sparse      1 Tensor, 2 Tensor, 3 int*
Segment     1 int, 2 int
Function    1 text, 4 raw*, 5 raw*, 6 raw*, 7 Node*, 8 raw, 9 Opset*, 10 text, 11 Attribute*, 12 Value*,
            13 text, 14 Pair*
Training    1 Graph, 2 Graph, 3 Pair*, 4 Pair*
Opset       1 text, 2 int
Pair        1 text, 2 text
Value       1 raw, 2 Type, 3 raw, 4 Pair*
Quantization 1 raw, 2 Pair*
Type        1 TensorType, 4 SequenceType, 5 MapType, 6 raw, 7 OpaqueType, 8 TensorType, 9 SequenceType
TensorType  1 int, 2 Shape
SequenceType 1 Type
MapType     1 int, 2 Type
OpaqueType  1 raw, 2 raw
Shape       1 Dimension*
Dimension   1 int, 2 raw, 3 raw
Device      1 raw, 2 int, 3 raw*
NodeDevice  1 raw, 2 Sharding*, 3 int
Sharding    1 raw, 2 int*, 3 DeviceGroup*, 4 ShardedDim*
DeviceGroup 1 int, 2 int*
ShardedDim  1 int, 2 SimpleShard*
SimpleShard 1 int, 2 raw, 3 int
)";

struct Layout;

struct Field {
    std::string_view kind;
    bool repeated = false;
    int wire = -1;  // -1: no such field
    const Layout *message = nullptr;
};

struct Layout {
    std::string_view name;
    std::array<Field, MOST_NUMBER + 1> fields;
};

using Layouts = std::map<std::string_view, Layout>;

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// Parse the table above. Its words are separated by spaces, commas and line ends; a message begins a line.
Layouts read_layouts() {
    Layouts layouts;
    Layout *layout = nullptr;
    std::size_t number = 0;
    for (std::size_t at = 0; at < PROTO.size();) {
        const std::size_t start = PROTO.find_first_not_of(" ,\n", at);
        if (start == std::string_view::npos) break;
        at = std::min(PROTO.find_first_of(" ,\n", start), PROTO.size());
        const std::string_view word = PROTO.substr(start, at - start);
        if (PROTO[start - 1] == '\n') {
            layout = &layouts[word];
            layout->name = word;
        } else if (is_digit(word[0])) {
            number = 0;
            for (const char digit : word) number = 10 * number + static_cast<std::size_t>(digit - '0');
        } else {
            Field &field = layout->fields[number];
            field.repeated = word.back() == '*';
            field.kind = word.substr(0, word.size() - (field.repeated ? 1 : 0));
            field.wire = field.kind == "int" ? 0 : field.kind == "f64" ? 1 : field.kind == "f32" ? 5 : 2;
        }
    }
    for (auto &[name, each] : layouts) {
        for (Field &field : each.fields) {
            const auto message = layouts.find(field.kind);
            if (message != layouts.end()) field.message = &message->second;
        }
    }
    return layouts;
}

// What `examine` reads of a message: the texts and numbers of its fields, and pairs of key and value.
struct Found {
    std::array<bool, MOST_NUMBER + 1> given{};
    std::array<std::uint64_t, MOST_NUMBER + 1> numbers{};
    std::array<std::string_view, MOST_NUMBER + 1> texts{};
    std::vector<std::pair<std::string_view, std::string_view>> pairs;  // field 13 of Tensor: external_data
};

// One walk over one file.
class Guard {
 public:
    Guard(const std::string &path, std::string_view data, const ExternalFiles &external)
        : path_(path), data_(data), external_(external), layouts_(read_layouts()) {}

    bool check() {
        if (data_.size() >= 8 && data_.substr(4, 4) == "ORTM") {  // ONNX Runtime would read it as its own format
            refuse("an ONNX graph", "the mark of an ORT-format model");
        }
        const Found model = walk(layouts_.at("Model"), 0, data_.size(), 0);
        if (!model.given[7]) refuse("a model with a graph", "none");
        if (!model.given[8]) refuse("a model with opset_import", "none");
        return uses_external_;
    }

 private:
    [[noreturn]] void refuse(const std::string &expected, const std::string &found) const {
        throw Error(Status::bundle, path_ + ": expected " + expected + ", found " + found + "; " + REMEDY);
    }

    [[noreturn]] void refuse_wire(unsigned wire, std::size_t begin) const {
        refuse("complete protobuf", "wire type " + std::to_string(wire) + " at byte " + std::to_string(begin));
    }

    // Read the varint at `at`, and move `at` past it.
    std::uint64_t varint(std::size_t &at, std::size_t end) const {
        std::uint64_t value = 0;
        for (unsigned shift = 0; shift < 70 && at < end; shift += 7) {
            const auto byte = static_cast<unsigned char>(data_[at++]);
            if (shift == 63 && byte > 1) break;  // beyond 64 bits
            value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
            if (byte < 0x80) return value;
        }
        refuse("complete protobuf", "a broken or truncated number at byte " + std::to_string(at));
    }

    // Check the message in bytes start to end.
    Found walk(const Layout &layout, std::size_t start, std::size_t end, int depth) {
        if (depth > MOST_DEPTH)
            refuse("at most " + std::to_string(MOST_DEPTH) + " messages inside one another", "more");
        const std::string message(layout.name);
        Found found;
        std::size_t at = start;
        while (at < end) {
            if (++fields_ > MOST_FIELDS) refuse("at most " + std::to_string(MOST_FIELDS) + " protobuf fields", "more");
            const std::size_t begin = at;
            const std::uint64_t tag = varint(at, end);
            const std::uint64_t number = tag >> 3;
            const auto wire = static_cast<unsigned>(tag & 7);
            if (number > MOST_NUMBER || layout.fields[number].wire < 0) {
                refuse("fields of onnx.proto in " + message,
                       "field " + std::to_string(number) + " at byte " + std::to_string(begin));
            }
            const Field &field = layout.fields[number];
            const auto natural = static_cast<unsigned>(field.wire);
            if (wire == 2) {
                const std::uint64_t length = varint(at, end);
                if (length > end - at) {
                    refuse("complete protobuf", message + " truncated at byte " + std::to_string(at) + ": " +
                                                    std::to_string(length) + " bytes missing");
                }
                const std::size_t after = at + static_cast<std::size_t>(length);
                if (natural == 2) {
                    take(layout, field, number, at, after, depth, found);
                } else if (!field.repeated) {
                    refuse_wire(wire, begin);
                } else if (natural != 0 && length % (natural == 5 ? 4 : 8) != 0) {  // packed numbers
                    refuse("complete protobuf",
                           "packed numbers of " + std::to_string(length) + " bytes at byte " + std::to_string(begin));
                }
                at = after;
            } else if (wire != natural) {
                refuse_wire(wire, begin);
            } else if (wire == 0) {
                found.numbers[number] = varint(at, end);
            } else {
                const std::size_t bytes = wire == 5 ? 4 : 8;
                if (bytes > end - at) {
                    refuse("complete protobuf", message + " truncated at byte " + std::to_string(begin));
                }
                at += bytes;
            }
            if (!field.repeated && found.given[number]) {  // protobuf takes the last one or merges them
                refuse("field " + std::to_string(number) + " of " + message + " once",
                       "it twice at byte " + std::to_string(begin));
            }
            found.given[number] = true;
        }
        examine(layout.name, found);
        return found;
    }

    // Take a length-delimited field: skip raw bytes, keep a text, walk a message.
    void take(const Layout &layout, const Field &field, std::uint64_t number, std::size_t start, std::size_t end,
              int depth, Found &found) {
        if (field.kind == "text") {
            found.texts[number] = data_.substr(start, end - start);
        } else if (field.message != nullptr) {
            const Found inner = walk(*field.message, start, end, depth + 1);
            if (layout.name == "Tensor" && number == 13) found.pairs.emplace_back(inner.texts[1], inner.texts[2]);
        }
    }

    // Apply the rules to a message whose fields have been read.
    void examine(std::string_view message, const Found &found) {
        if (message == "Node") {
            examine_node(text(found.texts[4]), text(found.texts[7]), text(found.texts[3]));
        } else if (message == "Opset") {
            examine_domain(text(found.texts[1]), [] { return std::string("opset_import"); });
        } else if (message == "Function") {
            const std::string domain = text(found.texts[10]);
            const std::string name = text(found.texts[1]);
            examine_domain(domain, [&] { return "function " + shown(name, 60); });
        } else if (message == "Tensor") {
            examine_tensor(found);
        }
    }

    [[nodiscard]] std::string text(std::string_view value) const {
        if (utf8::first_invalid(value) != std::string_view::npos) {
            refuse("names in UTF-8", utf8::repr(value.substr(0, 40)));
        }
        if (value.size() > MOST_TEXT) {
            refuse("names of at most " + std::to_string(MOST_TEXT) + " bytes", "a longer one: " + shown(value, 40));
        }
        return std::string(value);
    }

    // The first characters of a text, quoted as Python's repr does.
    static std::string shown(std::string_view value, std::size_t characters) {
        std::size_t at = 0;
        for (; characters > 0 && at < value.size(); --characters) utf8::next(value, at);
        return utf8::repr(value.substr(0, at));
    }

    // Refuse an unknown domain. `owner` describes what names it, for the message.
    template <typename Owner>
    void examine_domain(const std::string &domain, Owner owner) const {
        if (std::find(DOMAINS.begin(), DOMAINS.end(), domain) != DOMAINS.end()) return;
        refuse("operators of ai.onnx and com.microsoft", "the domain " + shown(domain, 100) + " in " + owner());
    }

    void examine_node(const std::string &operation, const std::string &domain, const std::string &name) const {
        examine_domain(domain, [&] { return "node " + shown(name, 60) + " (" + shown(operation, 60) + ")"; });
        if (domain != "com.microsoft") return;
        const auto &known = MICROSOFT_OPERATORS;
        if (std::find(known.begin(), known.end(), operation) != known.end()) return;
        refuse("a known operator of com.microsoft", shown(operation, 100) + " in node " + shown(name, 60));
    }

    // External data must lie inside a file that is listed, and be named exactly as it is listed.
    void examine_tensor(const Found &found) {
        const std::uint64_t location = found.numbers[14];
        if (location > 1) refuse("data_location 0 or 1", std::to_string(location));
        if (found.pairs.empty() && location == 0) return;
        uses_external_ = true;
        const std::string tensor = "tensor " + shown(text(found.texts[8]), 60);
        std::map<std::string, std::string> entries;
        bool known = location == 1;
        for (const auto &[key, value] : found.pairs) {
            const bool fresh = entries.emplace(text(key), text(value)).second;
            known = known && fresh && std::find(EXTERNAL_KEYS.begin(), EXTERNAL_KEYS.end(), key) != EXTERNAL_KEYS.end();
        }
        if (!known) {
            std::string keys;
            for (const auto &[key, value] : entries) keys += (keys.empty() ? "" : ", ") + utf8::repr(key);
            refuse("external data of " + tensor + " by location, offset and length", "[" + keys.substr(0, 98) + "]");
        }
        const std::string file = entries["location"];
        // ONNX Runtime reads some names as addresses in memory; comparing whole names excludes them.
        const auto listed = external_.find(file);
        if (listed == external_.end()) {
            refuse("external data of " + tensor + " in a file of manifest.json beside the graph", shown(file, 100));
        }
        if (entries.count("offset") == 0) entries["offset"] = "0";
        const std::uint64_t offset = digits(entries["offset"], "offset", tensor);
        const std::uint64_t length = digits(entries["length"], "length", tensor);
        const auto size = static_cast<std::uint64_t>(listed->second);
        if (length > size || offset > size - length) {  // the sum might not fit into 64 bits
            refuse(
                "external data of " + tensor + " within the " + std::to_string(size) + " bytes of " + file,
                "bytes " + std::to_string(offset) + " to " + std::to_string(offset) + " + " + std::to_string(length));
        }
    }

    [[nodiscard]] std::uint64_t digits(const std::string &value, const char *key, const std::string &tensor) const {
        if (value.empty() || value.size() > 19 || !std::all_of(value.begin(), value.end(), is_digit)) {
            refuse(std::string("a number as ") + key + " of " + tensor, shown(value, 40));
        }
        std::uint64_t number = 0;
        for (const char digit : value) number = 10 * number + static_cast<std::uint64_t>(digit - '0');
        return number;
    }

    const std::string &path_;
    std::string_view data_;
    const ExternalFiles &external_;
    Layouts layouts_;
    int fields_ = 0;
    bool uses_external_ = false;
};

}  // namespace

bool check_graph(const std::string &path, std::string_view data, const ExternalFiles &allowed_external) {
    if (data.empty()) {
        throw Error(Status::bundle, path + ": expected an ONNX graph, found an empty file; " + REMEDY);
    }
    return Guard(path, data, allowed_external).check();
}

}  // namespace hart_edge
