#include "api/kept_prompts.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "bundle/kept.h"

namespace hart_edge {

namespace {

constexpr std::size_t MOST_CONTEXTS = 16;
constexpr std::size_t MOST_FIRST_SCALE_BYTES = std::size_t{1} << 26;  // of first scales; the last prompt's is kept whatever it takes

std::vector<const Plan *> plans_of(const std::vector<Placed> &placed) {
    std::vector<const Plan *> plans;
    for (const Placed &each : placed) plans.push_back(each.plan);
    return plans;
}

// Bytes of what a caller tells of a prompt.
std::size_t key_bytes(const Plan &plan) {
    std::size_t bytes = 0;
    for (const auto &[name, buffer] : plan.buffers) {
        if (buffer.kind == BufferKind::input) bytes += static_cast<std::size_t>(buffer.bytes_per_image);
    }
    return bytes;
}

}  // namespace

KeptSteps::KeptSteps(const std::vector<Placed> &plans, std::size_t steps, std::size_t most) : steps_(steps) {
    const std::vector<std::string> names = kept_names(plans_of(plans), steps);
    if (names.empty()) return;
    for (const Placed &each : plans) {
        std::vector<Part> &parts = parts_.emplace_back();
        for (const std::string &name : names) {
            const auto size = static_cast<std::size_t>(each.plan->buffers.find(name)->bytes_per_image);
            parts.push_back({(*each.buffers)[name], size});
        }
    }
    const std::size_t size = bytes(plans, steps);
    memory_.reset(new char[most * size]);  // not written, as make_unique would
    slots_.resize(most);
    for (std::size_t number = 0; number < most; ++number) {
        slots_[number].data = memory_.get() + number * size;
        slots_[number].prompt.reserve(key_bytes(*plans.front().plan));
    }
}

std::size_t KeptSteps::bytes(const std::vector<Placed> &plans, std::size_t steps) {
    std::size_t bytes = 0;
    for (const std::string &name : kept_names(plans_of(plans), steps)) {
        bytes += static_cast<std::size_t>(plans.front().plan->buffers.find(name)->bytes_per_image);
    }
    return bytes;
}

bool KeptSteps::use(const PromptKey &prompt) {
    const auto known = [&prompt](const Slot &slot) { return slot.used > 0 && slot.prompt == prompt; };
    const auto slot = std::find_if(slots_.begin(), slots_.end(), known);
    if (slot == slots_.end()) return false;
    slot->used = ++clock_;
    found_ = &*slot;
    return true;
}

void KeptSteps::restore(std::size_t plan, Runner &runner) const {
    const char *from = found_->data;
    for (const Part &part : parts_[plan]) {
        std::memcpy(part.data, from, part.bytes);
        runner.upload(part.data, part.bytes);
        from += part.bytes;
    }
}

void KeptSteps::keep(const PromptKey &prompt, std::size_t plan, Runner &runner) {
    if (slots_.empty()) return;
    const auto earlier = [](const Slot &one, const Slot &other) { return one.used < other.used; };
    Slot &slot = *std::min_element(slots_.begin(), slots_.end(), earlier);
    slot.used = 0;  // until it is whole
    slot.prompt = prompt;
    char *into = slot.data;
    for (const Part &part : parts_[plan]) {
        runner.download(part.data, part.bytes);
        std::memcpy(into, part.data, part.bytes);
        into += part.bytes;
    }
    slot.used = ++clock_;
}

KeptPrompts::KeptPrompts(const std::vector<Placed> &plans, std::size_t room) {
    const Plan &plan = *plans.front().plan;
    prompt_.reserve(key_bytes(plan));
    levels_.emplace_back(plans, steps_of_text(plan), MOST_CONTEXTS);
    const std::size_t steps = steps_of_prompt(plan);
    const std::size_t size = std::max(KeptSteps::bytes(plans, steps), std::size_t{1});
    const std::size_t most = std::min(MOST_CONTEXTS, std::max(MOST_FIRST_SCALE_BYTES / size, std::size_t{1}));
    if (most * size <= room) levels_.emplace_back(plans, steps, most);
}

void KeptPrompts::begin(const std::array<Bytes, 2> &prompt, std::size_t plan) {
    plan_ = plan;
    prompt_.clear();
    for (const Bytes &part : prompt) {
        const auto *data = static_cast<const char *>(part.data);
        prompt_.insert(prompt_.end(), data, data + part.size);
    }
    known_ = 0;
    for (KeptSteps &level : levels_) {
        if (level.use(prompt_)) known_ = level.steps();
    }
}

bool KeptPrompts::knows(std::size_t step, Runner &runner) {
    if (step + 1 == known_) {
        for (KeptSteps &level : levels_) {
            if (level.steps() == known_) level.restore(plan_, runner);
        }
    }
    return step < known_;
}

void KeptPrompts::step_done(std::size_t step, Runner &runner) {
    for (KeptSteps &level : levels_) {
        if (step + 1 == level.steps() && level.steps() > known_) level.keep(prompt_, plan_, runner);
    }
}

}  // namespace hart_edge
