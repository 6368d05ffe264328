#include "bundle/speeds.h"

#include <algorithm>
#include <string>

#include "bundle/kept.h"

namespace hart_edge {

namespace {

bool same(Wires one, Wires other) {
    std::sort(one.begin(), one.end());
    std::sort(other.begin(), other.end());
    return one == other;
}

bool same(const Step &one, const Step &other) {
    return one.graph == other.graph && one.scale == other.scale && one.ends_scale == other.ends_scale &&
           same(one.inputs, other.inputs) && same(one.outputs, other.outputs);
}

bool same_form(const Buffer &one, const Buffer &other) {
    return one.kind == other.kind && one.dtype == other.dtype && one.shape == other.shape && one.start == other.start;
}

}  // namespace

void check_speeds(const Sampling &sampling, const Plan &plan, const Table<Plan> &further) {
    const Where top;
    if (sampling.speed != Speed::exact && further.find(std::string(word(sampling.speed))) == nullptr) {
        const Where at(top, "sampling");
        refuse(Where(at, "speed"), "exact, or a speed of speeds", show(word(sampling.speed)));
    }
    const std::size_t count = steps_of_prompt(plan);
    const Where speeds(top, "speeds");
    for (const auto &[speed, other] : further) {
        const Where where(speeds, speed);
        bool alike = steps_of_prompt(other) == count;
        for (std::size_t index = 0; alike && index < count; ++index) {
            alike = same(plan.steps[index], other.steps[index]);
        }
        if (!alike) {
            refuse(Where(where, "steps"),
                   "the first " + std::to_string(count) + " steps of plan, which depend on the prompt alone", "others");
        }
        for (std::size_t index = 0; index < count; ++index) {
            for (const auto &[tensor, name] : plan.steps[index].outputs) {
                if (same_form(*plan.buffers.find(name), *other.buffers.find(name))) continue;
                refuse(Where(where, "buffers"), show(name) + " as in plan", "another one");
            }
        }
    }
}

}  // namespace hart_edge
