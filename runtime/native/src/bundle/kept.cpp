#include "bundle/kept.h"

#include <algorithm>

namespace hart_edge {

std::size_t steps_of_text(const Plan &plan) {
    return plan.steps.front().graph == ComponentName::text_model ? 1 : 0;
}

std::size_t steps_of_prompt(const Plan &plan) {
    for (std::size_t index = 0; index < plan.steps.size(); ++index) {
        for (const auto &[tensor, name] : plan.steps[index].inputs) {
            const BufferKind kind = plan.buffers.find(name)->kind;
            if (kind == BufferKind::setting || kind == BufferKind::noise) return index;
        }
    }
    return plan.steps.size();
}

std::vector<std::string> kept_names(const std::vector<const Plan *> &plans, std::size_t steps) {
    std::vector<std::string> names;
    for (std::size_t index = 0; index < steps; ++index) {
        for (const auto &[tensor, name] : plans.front()->steps[index].outputs) {
            const auto reads_later = [&name = name, steps](const Plan *plan) {
                const Buffer &buffer = *plan->buffers.find(name);
                const Buffer &lives = buffer.kind == BufferKind::rows ? *plan->buffers.find(buffer.cache) : buffer;
                return lives.last >= static_cast<std::int64_t>(steps);
            };
            if (std::any_of(plans.begin(), plans.end(), reads_later)) names.push_back(name);
        }
    }
    return names;
}

}  // namespace hart_edge
