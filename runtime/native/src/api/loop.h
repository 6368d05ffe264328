// The loop: execute a bundle's plan, step by step, passing buffers from one graph to the next (runtime/loop.py).
//
// All memory is allocated before the loop begins: buffers whose lifetimes do not overlap share it, every step is bound
// once, and the loop itself allocates nothing.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "bundle/verify.h"
#include "engine/runner.h"

namespace hart_edge {

// Memory for buffers, freed with it.
class Block {
 public:
    explicit Block(std::size_t bytes);
    [[nodiscard]] char *data() const { return memory_.get(); }
    [[nodiscard]] std::size_t bytes() const { return bytes_; }

 private:
    struct Free {
        void operator()(char *memory) const;
    };
    std::unique_ptr<char, Free> memory_;
    std::size_t bytes_;
};

// The places of a plan's buffers at B = 1 in a block of memory, which the plans of other speeds use as well: one picture
// is drawn at a time. A buffer is alive from its first step to its last, and longer if a caller
// reads it: f_hat and indices until their scale has been reported, pixels and finite to the end.
class Buffers {
 public:
    // kept: what the first `steps` steps leave for later ones of any plan, which is alive until they have run.
    Buffers(const Bundle &bundle, const Plan &plan, const std::vector<std::string> &kept, std::size_t steps);

    // Use a block of at least bytes(). Nothing else may be called before.
    void lie_in(const Block &block);

    // The address of a buffer; the plan says how many bytes it has.
    [[nodiscard]] void *operator[](const std::string &name) const { return data_[plan_.buffers.place(name)]; }

    // A buffer as the tensor of a graph.
    [[nodiscard]] Tensor tensor(const std::string &graph_tensor, const std::string &name) const;

    // Register the constants with a runner.
    void register_with(Runner &runner) const;

    // Bytes of all buffers but constants; memory that several share counts once.
    [[nodiscard]] std::size_t bytes() const { return bytes_; }

    // A buffer that no step writes, with the step that reads it first.
    struct Source {
        const Buffer *buffer;
        void *data;
    };
    [[nodiscard]] const std::vector<Source> &sources(std::size_t step) const { return sources_[step]; }

 private:
    [[nodiscard]] void *row(const Buffer &rows) const;

    const Plan &plan_;
    std::size_t bytes_ = 0;
    std::vector<std::size_t> offsets_;  // indexed as the buffers of the plan; of those that lie in the block
    std::vector<void *> data_;          // likewise
    std::vector<std::vector<Source>> sources_;
};

// The name of the buffer of token ids at a scale, "" where the plan has none.
std::string indices_of(const Plan &plan, std::int64_t scale);

// Bind every step of the plan. Returns the number by which the runner runs each.
std::vector<std::size_t> bind(const Plan &plan, Runner &runner, const Buffers &buffers);

// What the loop calls back.
class Caller {
 public:
    virtual ~Caller() = default;
    virtual void fill(const Buffer &buffer, void *into) = 0;  // write an input, setting or noise buffer
    virtual bool knows(std::size_t step) = 0;                 // whether a step need not run: its outputs are there
    virtual void step_done(std::size_t step) = 0;             // throws to stop
    virtual void scale_done(std::size_t scale) = 0;           // its f_hat can be decoded; throws to stop
};

// Run every step. The decoder is the last one, so the picture is there when it returns.
void execute(const Plan &plan, Runner &runner, const std::vector<std::size_t> &bindings, const Buffers &buffers,
             Caller &caller);

}  // namespace hart_edge
