#include "bundle/plan_check.h"

#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>
#include <unordered_set>

namespace hart_edge {

namespace {

using Names = std::unordered_set<std::string>;

std::string show(const Extent &extent) {
    return extent.images == 0 ? std::to_string(extent.size) : extent.images == 1 ? "\"B\"" : "\"2B\"";
}

std::string show_scale(const std::optional<std::int64_t> &scale) {
    return scale ? std::to_string(*scale) : "null";
}

std::string described(Dtype dtype, const Shape &shape) {
    return std::string(word(dtype)) + " " + shape_text(shape);
}

void check_buffer(const Where &where, const Buffer &buffer, const Table<Constant> &constants, std::int64_t scales) {
    const std::int64_t size = bytes_per_image(buffer.dtype, buffer.shape);
    const Where shape(where, "shape");
    const Where scale(where, "scale");
    if (size > MOST_BYTES) {
        refuse(shape, "at most " + std::to_string(MOST_BYTES) + " bytes per image", std::to_string(size));
    }
    if (buffer.bytes_per_image != size) {
        refuse(Where(where, "bytes_per_image"), std::to_string(size) + ", the size at B = 1",
               std::to_string(buffer.bytes_per_image));
    }
    if (buffer.scale && *buffer.scale >= scales) {
        refuse(scale, "an integer from 0 to " + std::to_string(scales - 1), std::to_string(*buffer.scale));
    }
    if (buffer.kind == BufferKind::setting) {
        if (buffer.shape != Shape{{1, 0}}) refuse(shape, "[1] for a setting", shape_text(buffer.shape));
        if (buffer.scale.has_value() != per_scale(buffer.setting)) {
            const std::string wanted = per_scale(buffer.setting) ? "a scale" : "null";
            refuse(scale, wanted + " for " + std::string(word(buffer.setting)), show_scale(buffer.scale));
        }
    }
    if (buffer.kind == BufferKind::noise) {
        if (!buffer.scale) refuse(scale, "a scale for noise", "null");
        if (buffer.dtype != Dtype::float32) {
            refuse(Where(where, "dtype"), "float32 for noise", hart_edge::show(word(buffer.dtype)));
        }
    }
    const bool counted = !buffer.shape.empty() && buffer.shape.front().images == 0;
    if ((buffer.kind == BufferKind::cache || buffer.kind == BufferKind::rows) && !counted) {
        refuse(shape, "a number of rows on axis 0 of " + std::string(word(buffer.kind)), shape_text(buffer.shape));
    }
    if (buffer.kind == BufferKind::constant) {
        const Constant *source = constants.find(buffer.constant);
        if (source == nullptr) {
            refuse(Where(where, "constant"), "a name in constants", hart_edge::show(buffer.constant));
        }
        if (source->dtype != buffer.dtype || source->shape != buffer.shape) {
            refuse(where, described(source->dtype, source->shape) + " as in constants",
                   described(buffer.dtype, buffer.shape));
        }
    }
}

// The row after the last of a range.
std::int64_t end_of(const Buffer &rows) {
    return rows.start + rows.shape.front().size;
}

// Check that a range of rows lies in its cache.
void check_rows(const Where &where, const Buffer &buffer, const Table<Buffer> &buffers) {
    const Buffer *cache = buffers.find(buffer.cache);
    const std::string shown = hart_edge::show(buffer.cache);
    if (cache == nullptr || cache->kind != BufferKind::cache) {
        refuse(Where(where, "cache"), "the name of a buffer of kind cache", shown);
    }
    const auto row = [](const Buffer &each) { return Shape(each.shape.begin() + 1, each.shape.end()); };
    if (cache->dtype != buffer.dtype || row(*cache) != row(buffer)) {
        refuse(where, "rows of " + described(cache->dtype, row(*cache)) + " as in " + shown,
               described(buffer.dtype, row(buffer)));
    }
    const std::int64_t most = cache->shape.front().size;
    if (end_of(buffer) > most) {
        refuse(Where(where, "start"), "rows within the " + std::to_string(most) + " of " + shown,
               "rows " + std::to_string(buffer.start) + " to " + std::to_string(end_of(buffer)));
    }
}

// The extents that the symbols of a graph's shapes stand for within a step.
using Symbols = std::map<std::string, Extent>;

void check_tensor(const Where &at, const TensorSpec &tensor, const std::string &name, const Buffer &buffer,
                  Symbols &symbols) {
    const std::string shown = hart_edge::show(name);
    if (tensor.dtype != buffer.dtype) {
        refuse(at, "a buffer of " + std::string(word(tensor.dtype)), shown + " of " + std::string(word(buffer.dtype)));
    }
    if (tensor.shape.size() != buffer.shape.size()) {
        refuse(at, "a buffer of " + std::to_string(tensor.shape.size()) + " dimensions",
               shown + " of " + std::to_string(buffer.shape.size()));
    }
    for (std::size_t axis = 0; axis < tensor.shape.size(); ++axis) {
        const Dimension &size = tensor.shape[axis];
        const Extent given = buffer.shape[axis];
        const Extent expected =
            size.symbol.empty() ? Extent{size.size, 0} : symbols.try_emplace(size.symbol, given).first->second;
        if (expected != given) {
            refuse(at, "extent " + show(expected) + " on axis " + std::to_string(axis), shown + " with " + show(given));
        }
    }
}

// Call check(tensor, name, buffer, where) for every input, or every output, of a step, once both sides are known to
// exist.
template <typename Check>
void wired(const Where &where, const Wires &pairs, const std::vector<TensorSpec> &specs, const Table<Buffer> &buffers,
           Check check) {
    for (const auto &[tensor, name] : pairs) {
        const Where at(where, tensor);
        const auto named = [&tensor = tensor](const TensorSpec &spec) { return spec.name == tensor; };
        const auto spec = std::find_if(specs.begin(), specs.end(), named);
        if (spec == specs.end()) {
            std::string known;
            for (const TensorSpec &each : specs) known += (known.empty() ? "" : ", ") + each.name;
            refuse(where, "tensors of the component: " + known.substr(0, 200), hart_edge::show(tensor));
        }
        const Buffer *buffer = buffers.find(name);
        if (buffer == nullptr) refuse(at, "the name of a buffer", hart_edge::show(name));
        check(*spec, name, *buffer, at);
    }
}

// How many rows of each cache are filled.
using Rows = std::unordered_map<std::string, std::int64_t>;

// Check one step; add its outputs to `written`, and to `rows`.
void check_step(const Where &where, const Step &step, const std::vector<Component> &components,
                const Table<Buffer> &buffers, Names &written, Rows &rows, std::int64_t scales) {
    const auto named = [&step](const Component &each) { return each.name == step.graph; };
    const auto component = std::find_if(components.begin(), components.end(), named);
    if (component == components.end()) {
        refuse(Where(where, "graph"), "the name of a component", hart_edge::show(word(step.graph)));
    }
    if (step.scale && *step.scale >= scales) {
        refuse(Where(where, "scale"), "an integer from 0 to " + std::to_string(scales - 1),
               std::to_string(*step.scale));
    }
    Symbols symbols;
    const Where inputs(where, "inputs");
    wired(inputs, step.inputs, component->inputs, buffers,
          [&](const TensorSpec &tensor, const std::string &name, const Buffer &buffer, const Where &at) {
              if (buffer.kind == BufferKind::value && written.count(name) == 0) {
                  refuse(at, "a buffer that an earlier step wrote", hart_edge::show(name));
              }
              if (buffer.kind == BufferKind::cache) {
                  refuse(at, "rows of a cache", hart_edge::show(name + " of kind cache"));
              }
              if (buffer.kind == BufferKind::rows && end_of(buffer) > rows[buffer.cache]) {
                  refuse(at,
                         "rows that earlier steps wrote, " + std::to_string(rows[buffer.cache]) + " of " +
                             hart_edge::show(buffer.cache),
                         hart_edge::show(name) + ", which ends at " + std::to_string(end_of(buffer)));
              }
              check_tensor(at, tensor, name, buffer, symbols);
          });
    for (const TensorSpec &spec : component->inputs) {
        const auto fed = [&spec](const auto &wire) { return wire.first == spec.name; };
        if (std::none_of(step.inputs.begin(), step.inputs.end(), fed)) {
            refuse(inputs, "every input of " + std::string(word(step.graph)), "no " + hart_edge::show(spec.name));
        }
    }
    const Where outputs(where, "outputs");
    wired(outputs, step.outputs, component->outputs, buffers,
          [&](const TensorSpec &tensor, const std::string &name, const Buffer &buffer, const Where &at) {
              if (buffer.kind == BufferKind::rows) {
                  std::int64_t &count = rows[buffer.cache];
                  if (buffer.start != count) {
                      refuse(at,
                             "rows from " + std::to_string(count) + " of " + hart_edge::show(buffer.cache) +
                                 " on, the first that nothing wrote",
                             hart_edge::show(name) + " from " + std::to_string(buffer.start) + " on");
                  }
                  count = end_of(buffer);
              } else if (buffer.kind != BufferKind::value) {
                  const std::string found = name + " of kind " + std::string(word(buffer.kind));
                  refuse(at, "a buffer of kind value or rows", hart_edge::show(found));
              } else if (!written.insert(name).second) {
                  refuse(at, "a buffer that nothing wrote before", hart_edge::show(name));
              }
              check_tensor(at, tensor, name, buffer, symbols);
          });
}

void check_callers(const Plan &plan, const Where &buffers) {
    std::vector<std::string> callers;
    for (const auto &[name, buffer] : plan.buffers) {
        if (buffer.kind == BufferKind::input) callers.push_back(name);
    }
    std::sort(callers.begin(), callers.end());
    const std::vector<std::string> ids{"input_ids"};
    const std::vector<std::string> context{"context", "context_mask"};
    if (callers == ids || callers == context) return;
    std::string found;
    for (const std::string &name : callers) found += (found.empty() ? "" : ", ") + name;
    refuse(buffers, "the inputs input_ids, or context and context_mask",
           hart_edge::show(found.empty() ? "none" : found));
}

// Check that the last step decodes the last f_hat, and could decode that of any other scale, as previews do.
void check_results(const Plan &plan, const Names &written, std::int64_t scales, std::int64_t image_size,
                   const Where &buffers, const Where &steps) {
    const std::string final_f_hat = "f_hat." + std::to_string(scales - 1);
    struct Wanted {
        std::string name;
        Dtype dtype;
        Shape shape;
    };
    const Extent images{0, 1};
    std::vector<Wanted> wanted{
        {"pixels", Dtype::uint8, {images, {image_size, 0}, {image_size, 0}, {3, 0}}},
        {"finite", Dtype::boolean, {images}},
    };
    for (std::int64_t scale = 0; scale < scales; ++scale) {
        wanted.push_back({"f_hat." + std::to_string(scale), Dtype::float32, plan.buffers.find(final_f_hat)->shape});
    }
    for (const auto &[name, dtype, shape] : wanted) {
        if (written.count(name) == 0) refuse(steps, "a step that writes " + name, "none");
        const Buffer &buffer = *plan.buffers.find(name);
        if (buffer.dtype != dtype || buffer.shape != shape) {
            refuse(Where(buffers, name), described(dtype, shape), described(buffer.dtype, buffer.shape));
        }
    }
    const Where where(steps, plan.steps.size() - 1);
    const Step &step = plan.steps.back();
    if (step.graph != ComponentName::decoder || step.inputs != Wires{{"f_hat", final_f_hat}}) {
        refuse(where, "the decoder with " + final_f_hat + " as f_hat, its only input, to be last",
               hart_edge::show(word(step.graph)));
    }
    const Where outputs(where, "outputs");
    for (const std::string name : {"pixels", "finite"}) {
        const auto named = [&name](const auto &wire) { return wire.first == name; };
        const auto wire = std::find_if(step.outputs.begin(), step.outputs.end(), named);
        if (wire == step.outputs.end() || wire->second != name) {
            refuse(Where(outputs, name), hart_edge::show(name),
                   wire == step.outputs.end() ? "null" : hart_edge::show(wire->second));
        }
    }
}

void check_lifetimes(const Plan &plan, const Where &buffers) {
    struct Span {
        std::int64_t first;
        std::int64_t last;
    };
    std::unordered_map<std::string, Span> spans;
    for (std::size_t index = 0; index < plan.steps.size(); ++index) {
        const auto at = static_cast<std::int64_t>(index);
        for (const Wires *wires : {&plan.steps[index].inputs, &plan.steps[index].outputs}) {
            for (const auto &[tensor, name] : *wires) {
                spans.try_emplace(name, Span{at, at}).first->second.last = at;
                const Buffer &buffer = *plan.buffers.find(name);
                if (buffer.kind != BufferKind::rows) continue;
                spans.try_emplace(buffer.cache, Span{at, at}).first->second.last = at;
            }
        }
    }
    for (const auto &[name, buffer] : plan.buffers) {
        const Where where(buffers, name);
        const auto span = spans.find(name);
        if (span == spans.end()) refuse(where, "a buffer that a step reads or writes", "none that does");
        const auto check = [&where](const char *key, std::int64_t expected, std::int64_t found) {
            if (expected == found) return;
            refuse(Where(where, key), std::to_string(expected) + ", the " + key + " step that touches it",
                   std::to_string(found));
        };
        check("first", span->second.first, buffer.first);
        check("last", span->second.last, buffer.last);
    }
}

}  // namespace

void check_plan(const Plan &plan, const std::vector<Component> &components, const Table<Constant> &constants,
                std::int64_t scales, std::int64_t image_size, const Where &root) {
    const Where buffers(root, "buffers");
    const Where steps(root, "steps");
    for (const auto &[name, buffer] : plan.buffers) check_buffer(Where(buffers, name), buffer, constants, scales);
    for (const auto &[name, buffer] : plan.buffers) {
        if (buffer.kind == BufferKind::rows) check_rows(Where(buffers, name), buffer, plan.buffers);
    }
    check_callers(plan, buffers);
    Names written;
    Rows rows;
    std::int64_t ended = 0;
    for (std::size_t index = 0; index < plan.steps.size(); ++index) {
        const Where where(steps, index);
        const Step &step = plan.steps[index];
        check_step(where, step, components, plan.buffers, written, rows, scales);
        if (!step.ends_scale) continue;
        const Where ends(where, "ends_scale");
        const std::string scale = std::to_string(ended);
        if (step.scale != ended) refuse(ends, "scale " + scale + " to end next", "scale " + show_scale(step.scale));
        if (written.count("f_hat." + scale) == 0) {
            refuse(ends, "the value f_hat." + scale + " to be written by now", "none");
        }
        ++ended;
    }
    if (ended != scales) {
        refuse(steps, std::to_string(scales) + " steps with ends_scale, one per scale", std::to_string(ended));
    }
    check_results(plan, written, scales, image_size, buffers, steps);
    check_lifetimes(plan, buffers);
}

}  // namespace hart_edge
