// The contexts of the last prompts: the same prompt with another seed needs no text model (runtime/kept_contexts.py).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "api/loop.h"
#include "bundle/plan.h"
#include "engine/runner.h"

namespace hart_edge {

class KeptContexts {
 public:
    // All memory is there from now on: a system that gives pages when they are written takes none for prompts that
    // never come.
    KeptContexts(const Plan &plan, const Buffers &buffers);

    // Whether a step is the text model's.
    [[nodiscard]] bool is_own(std::size_t step) const { return step == step_; }

    // Put what the text model made of these ids into its buffers. False where that is not known.
    bool restore(const std::vector<std::int64_t> &ids, Runner &runner);

    // Remember what the buffers hold, in place of the prompt that was used longest ago.
    void keep(const std::vector<std::int64_t> &ids, Runner &runner);

 private:
    static constexpr std::size_t MOST = 16;  // prompts

    struct Part {  // a buffer that the text model leaves
        void *data;
        std::size_t bytes;
    };
    struct Slot {
        std::vector<std::int64_t> ids;  // room for them is there; none until the slot is used
        std::uint64_t used = 0;         // when; the larger the later
        char *data = nullptr;
    };

    std::size_t step_;  // of the plan; beyond its end where it has no text model
    std::vector<Part> parts_;
    std::unique_ptr<char[]> memory_;
    std::vector<Slot> slots_;
    std::uint64_t clock_ = 0;
};

}  // namespace hart_edge
