// What depends on a prompt alone, of the last prompts: another seed or setting need not compute it again
// (runtime/kept_prompts.py, hart_edge/bundle/kept.py).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "api/loop.h"
#include "bundle/plan.h"
#include "engine/runner.h"

namespace hart_edge {

// All bytes that tell a prompt from others.
using PromptKey = std::vector<char>;

// A plan of a bundle, and where its buffers lie.
struct Placed {
    const Plan *plan;
    const Buffers *buffers;
};

// What the first steps of all plans leave for later ones, of some prompts.
class KeptSteps {
 public:
    // steps: how many of the first; most: prompts. All memory is there from now on: a system that gives pages when they
    // are written takes none for prompts that never come.
    KeptSteps(const std::vector<Placed> &plans, std::size_t steps, std::size_t most);

    // Bytes of what is kept of one prompt.
    static std::size_t bytes(const std::vector<Placed> &plans, std::size_t steps);

    [[nodiscard]] std::size_t steps() const { return steps_; }

    // Whether a prompt is known; if so, it counts as used now.
    bool use(const PromptKey &prompt);

    // Put what is known of the prompt that use() found into the buffers of a plan, told by its place among all.
    void restore(std::size_t plan, Runner &runner) const;

    // Remember what a plan's buffers hold, in place of the prompt that was used longest ago.
    void keep(const PromptKey &prompt, std::size_t plan, Runner &runner);

 private:
    struct Part {  // a buffer
        void *data;
        std::size_t bytes;
    };
    struct Slot {
        PromptKey prompt;        // room for it is there
        std::uint64_t used = 0;  // when; the larger the later, 0 until the slot is whole
        char *data = nullptr;
    };

    std::size_t steps_;
    std::vector<std::vector<Part>> parts_;  // of every plan
    std::unique_ptr<char[]> memory_;
    std::vector<Slot> slots_;
    const Slot *found_ = nullptr;  // by the last use()
    std::uint64_t clock_ = 0;
};

class KeptPrompts {
 public:
    struct Bytes {
        const void *data = nullptr;
        std::size_t size = 0;
    };

    // room: bytes for what is kept besides contexts, the first scales; they are not kept where it does not suffice.
    KeptPrompts(const std::vector<Placed> &plans, std::size_t room);

    // Begin a picture of a prompt, by a plan that is told by its place among all.
    void begin(const std::array<Bytes, 2> &prompt, std::size_t plan);

    // Whether a step need not run. At the last of these the buffers are filled with what is known.
    bool knows(std::size_t step, Runner &runner);

    // Remember what has been computed, once it is all there.
    void step_done(std::size_t step, Runner &runner);

 private:
    std::vector<KeptSteps> levels_;  // each knows more than the one before
    PromptKey prompt_;
    std::size_t plan_ = 0;
    std::size_t known_ = 0;  // steps that need not run
};

}  // namespace hart_edge
