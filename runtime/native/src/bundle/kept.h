// What of a plan depends on the prompt alone: a runner may keep it for the next picture of the same prompt
// (hart_edge/bundle/kept.py).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "bundle/plan.h"

namespace hart_edge {

// How many of the first steps are the text model's.
std::size_t steps_of_text(const Plan &plan);

// How many of the first steps read neither a setting nor noise, nor what a step makes of them.
std::size_t steps_of_prompt(const Plan &plan);

// The buffers that the first steps, which all plans have, leave for later ones of any of them; rows of caches among them.
std::vector<std::string> kept_names(const std::vector<const Plan *> &plans, std::size_t steps);

}  // namespace hart_edge
