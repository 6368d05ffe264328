#include "api/kept_prompts.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace hart_edge {

namespace {

constexpr std::size_t MOST_CONTEXTS = 16;
constexpr std::size_t MOST_FIRST_SCALE_BYTES = std::size_t{1} << 26;  // of first scales; the last prompt's is kept whatever it takes

// How many of the first steps are the text model's.
std::size_t steps_of_text(const Plan &plan) {
    return plan.steps.front().graph == ComponentName::text_model ? 1 : 0;
}

// How many of the first steps read neither a setting nor noise, nor what a step makes of them.
std::size_t steps_of_prompt(const Plan &plan) {
    for (std::size_t index = 0; index < plan.steps.size(); ++index) {
        for (const auto &[tensor, name] : plan.steps[index].inputs) {
            const BufferKind kind = plan.buffers.find(name)->kind;
            if (kind == BufferKind::setting || kind == BufferKind::noise) return index;
        }
    }
    return plan.steps.size();
}

// The buffers that the first steps leave for later ones, rows of caches among them.
std::vector<std::string> kept_names(const Plan &plan, std::size_t steps) {
    std::vector<std::string> names;
    for (std::size_t index = 0; index < steps; ++index) {
        for (const auto &[tensor, name] : plan.steps[index].outputs) {
            const Buffer &buffer = *plan.buffers.find(name);
            const Buffer &lives = buffer.kind == BufferKind::rows ? *plan.buffers.find(buffer.cache) : buffer;
            if (lives.last >= static_cast<std::int64_t>(steps)) names.push_back(name);
        }
    }
    return names;
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

KeptSteps::KeptSteps(const Plan &plan, const Buffers &buffers, std::size_t steps, std::size_t most) : steps_(steps) {
    for (const std::string &name : kept_names(plan, steps)) {
        parts_.push_back({buffers[name], static_cast<std::size_t>(plan.buffers.find(name)->bytes_per_image)});
    }
    if (parts_.empty()) return;
    const std::size_t size = bytes(plan, steps);
    memory_.reset(new char[most * size]);  // not written, as make_unique would
    slots_.resize(most);
    for (std::size_t number = 0; number < most; ++number) {
        slots_[number].data = memory_.get() + number * size;
        slots_[number].prompt.reserve(key_bytes(plan));
    }
}

std::size_t KeptSteps::bytes(const Plan &plan, std::size_t steps) {
    std::size_t bytes = 0;
    for (const std::string &name : kept_names(plan, steps)) {
        bytes += static_cast<std::size_t>(plan.buffers.find(name)->bytes_per_image);
    }
    return bytes;
}

bool KeptSteps::use(const PromptKey &prompt) {
    for (Slot &slot : slots_) {
        if (slot.used == 0 || slot.prompt != prompt) continue;
        slot.used = ++clock_;
        return true;
    }
    return false;
}

void KeptSteps::restore(const PromptKey &prompt, Runner &runner) {
    for (const Slot &slot : slots_) {
        if (slot.used == 0 || slot.prompt != prompt) continue;
        const char *from = slot.data;
        for (const Part &part : parts_) {
            std::memcpy(part.data, from, part.bytes);
            runner.upload(part.data, part.bytes);
            from += part.bytes;
        }
    }
}

void KeptSteps::keep(const PromptKey &prompt, Runner &runner) {
    if (slots_.empty()) return;
    const auto earlier = [](const Slot &one, const Slot &other) { return one.used < other.used; };
    Slot &slot = *std::min_element(slots_.begin(), slots_.end(), earlier);
    slot.used = 0;  // until it is whole
    slot.prompt = prompt;
    char *into = slot.data;
    for (const Part &part : parts_) {
        runner.download(part.data, part.bytes);
        std::memcpy(into, part.data, part.bytes);
        into += part.bytes;
    }
    slot.used = ++clock_;
}

KeptPrompts::KeptPrompts(const Plan &plan, const Buffers &buffers, std::size_t room) {
    prompt_.reserve(key_bytes(plan));
    levels_.emplace_back(plan, buffers, steps_of_text(plan), MOST_CONTEXTS);
    const std::size_t steps = steps_of_prompt(plan);
    const std::size_t size = std::max(KeptSteps::bytes(plan, steps), std::size_t{1});
    const std::size_t most = std::min(MOST_CONTEXTS, std::max(MOST_FIRST_SCALE_BYTES / size, std::size_t{1}));
    if (most * size <= room) levels_.emplace_back(plan, buffers, steps, most);
}

void KeptPrompts::begin(const std::array<Bytes, 2> &prompt) {
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
            if (level.steps() == known_) level.restore(prompt_, runner);
        }
    }
    return step < known_;
}

void KeptPrompts::step_done(std::size_t step, Runner &runner) {
    for (KeptSteps &level : levels_) {
        if (step + 1 == level.steps() && level.steps() > known_) level.keep(prompt_, runner);
    }
}

}  // namespace hart_edge
