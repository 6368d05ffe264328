#include "api/loop.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <unordered_map>

namespace hart_edge {

namespace {

constexpr std::size_t ALIGNMENT = 256;  // TensorRT requires it of addresses; more than a cache line

// A piece of the shared memory, and the steps during which it holds a buffer.
struct Piece {
    std::size_t place;  // the buffer's index in the plan
    std::size_t bytes;
    std::int64_t first;
    std::int64_t last;
    std::size_t offset = 0;
};

// Whether the caller or the loop, rather than a step, writes a buffer.
bool is_filled(BufferKind kind) {
    return kind == BufferKind::input || kind == BufferKind::setting || kind == BufferKind::zero ||
           kind == BufferKind::noise;
}

bool meet(const Piece &a, const Piece &b) {
    return a.first <= b.last && b.first <= a.last;
}

// For every buffer that a caller reads: the step after which it is no longer needed.
std::unordered_map<std::string, std::int64_t> kept_longer(const Plan &plan) {
    const auto end = static_cast<std::int64_t>(plan.steps.size());
    std::unordered_map<std::string, std::int64_t> until{{"pixels", end}, {"finite", end}};
    std::int64_t last_scale = 0;
    for (std::int64_t index = 0; index < end; ++index) {
        const Step &step = plan.steps[static_cast<std::size_t>(index)];
        if (!step.ends_scale) continue;
        last_scale = std::max(last_scale, *step.scale);
        until["f_hat." + std::to_string(*step.scale)] = index;
        until[indices_of(plan, *step.scale)] = index;
    }
    until[indices_of(plan, last_scale)] = end;  // reported together with the picture
    return until;
}

// Give every piece an offset: the largest first, each at the lowest offset that is free while it is alive. Returns the
// bytes of all together.
std::size_t arrange(std::vector<Piece> &pieces) {
    std::stable_sort(pieces.begin(), pieces.end(), [](const Piece &a, const Piece &b) { return a.bytes > b.bytes; });
    std::vector<const Piece *> placed;  // sorted by offset
    std::size_t whole = 0;
    for (Piece &piece : pieces) {
        std::size_t offset = 0;
        for (const Piece *other : placed) {
            if (!meet(piece, *other)) continue;
            if (other->offset >= offset + piece.bytes) break;
            offset = std::max(offset, other->offset + other->bytes);
        }
        piece.offset = offset;
        whole = std::max(whole, offset + piece.bytes);
        const auto lower = [](const Piece *a, const Piece *b) { return a->offset < b->offset; };
        placed.insert(std::upper_bound(placed.begin(), placed.end(), &piece, lower), &piece);
    }
    return whole;
}

}  // namespace

Block::Block(std::size_t bytes)
    : memory_(static_cast<char *>(::operator new(bytes, std::align_val_t(ALIGNMENT)))), bytes_(bytes) {}

void Block::Free::operator()(char *memory) const {
    ::operator delete(memory, std::align_val_t(ALIGNMENT));
}

Buffers::Buffers(const Bundle &bundle, const Plan &plan, const std::vector<std::string> &kept, std::size_t steps)
    : plan_(plan), sources_(plan_.steps.size()) {
    auto longer = kept_longer(plan_);
    for (const std::string &each : kept) {
        const Buffer &buffer = *plan_.buffers.find(each);
        const std::string &name = buffer.kind == BufferKind::rows ? buffer.cache : each;
        const std::int64_t last = static_cast<std::int64_t>(steps) - 1;
        const auto [known, added] = longer.try_emplace(name, last);
        if (!added) known->second = std::max(known->second, last);
    }
    std::vector<Piece> pieces;
    data_.resize(plan_.buffers.size());
    offsets_.resize(plan_.buffers.size());
    std::size_t place = 0;
    for (const auto &[name, buffer] : plan_.buffers) {
        if (buffer.kind == BufferKind::constant) {  // mapped read-only: engines do not write inputs
            data_[place] = const_cast<char *>(bundle.constant(buffer.constant));
        } else if (buffer.kind != BufferKind::rows) {
            const auto bytes = static_cast<std::size_t>(buffer.bytes_per_image);
            const std::size_t padded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
            const auto until = longer.find(name);
            const std::int64_t last = until == longer.end() ? buffer.last : std::max(buffer.last, until->second);
            pieces.push_back({place, padded, buffer.first, last});
        }
        ++place;
    }
    bytes_ = std::max(arrange(pieces), ALIGNMENT);  // an empty buffer needs an address too
    for (const Piece &piece : pieces) offsets_[piece.place] = piece.offset;
}

void Buffers::lie_in(const Block &block) {
    std::size_t place = 0;
    for (const auto &[name, buffer] : plan_.buffers) {
        if (buffer.kind != BufferKind::constant && buffer.kind != BufferKind::rows) {
            data_[place] = block.data() + offsets_[place];
        }
        ++place;
    }
    place = 0;
    for (const auto &[name, buffer] : plan_.buffers) {
        if (buffer.kind == BufferKind::rows) {
            data_[place] = row(buffer);
        } else if (is_filled(buffer.kind)) {
            sources_[static_cast<std::size_t>(buffer.first)].push_back({&buffer, data_[place]});
        }
        ++place;
    }
}

// Where a range of rows begins in its cache.
void *Buffers::row(const Buffer &rows) const {
    const Buffer &cache = *plan_.buffers.find(rows.cache);
    const std::int64_t most = cache.shape.front().size;
    const std::int64_t offset = most == 0 ? 0 : cache.bytes_per_image / most * rows.start;
    return static_cast<char *>((*this)[rows.cache]) + offset;
}

void Buffers::register_with(Runner &runner) const {
    for (const auto &[name, buffer] : plan_.buffers) {
        if (buffer.kind != BufferKind::constant) continue;
        runner.register_memory((*this)[name], static_cast<std::size_t>(buffer.bytes_per_image), true);
    }
}

Tensor Buffers::tensor(const std::string &graph_tensor, const std::string &name) const {
    const Buffer &buffer = *plan_.buffers.find(name);
    Tensor tensor{graph_tensor, buffer.dtype, {}, (*this)[name], static_cast<std::size_t>(buffer.bytes_per_image)};
    for (const Extent &extent : buffer.shape) tensor.shape.push_back(extent.at_one_image());
    return tensor;
}

std::string indices_of(const Plan &plan, std::int64_t scale) {
    for (const Step &step : plan.steps) {
        if (step.graph != ComponentName::tokens || step.scale != scale) continue;
        for (const auto &[tensor, name] : step.outputs) {
            if (tensor == "indices" && plan.buffers.find(name)->dtype == Dtype::int64) return name;
        }
    }
    return "";
}

std::vector<std::size_t> bind(const Plan &plan, Runner &runner, const Buffers &buffers) {
    buffers.register_with(runner);
    std::vector<std::size_t> bindings;
    for (const Step &step : plan.steps) {
        std::vector<Tensor> inputs;
        std::vector<Tensor> outputs;
        for (const auto &[tensor, name] : step.inputs) inputs.push_back(buffers.tensor(tensor, name));
        for (const auto &[tensor, name] : step.outputs) outputs.push_back(buffers.tensor(tensor, name));
        bindings.push_back(runner.bind(step.graph, step.scale, inputs, outputs));
    }
    return bindings;
}

void execute(const Plan &plan, Runner &runner, const std::vector<std::size_t> &bindings, const Buffers &buffers,
             Caller &caller) {
    for (std::size_t index = 0; index < plan.steps.size(); ++index) {
        for (const auto &[buffer, data] : buffers.sources(index)) {
            if (buffer->kind == BufferKind::zero) {
                std::memset(data, 0, static_cast<std::size_t>(buffer->bytes_per_image));
            } else {
                caller.fill(*buffer, data);
            }
            runner.upload(data, static_cast<std::size_t>(buffer->bytes_per_image));
        }
        if (!caller.knows(index)) {
            runner.run(bindings[index]);
            caller.step_done(index);
        }
        if (plan.steps[index].ends_scale) caller.scale_done(static_cast<std::size_t>(*plan.steps[index].scale));
    }
}

}  // namespace hart_edge
