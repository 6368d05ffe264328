// Checks a plan against its graphs and constants (hart_edge/bundle/plan_check.py): throws the bundle error unless every
// step can run on what the steps before it wrote. docs/bundle.md lists the rules under "A plan is consistent".
// root: where the plan stands in the manifest.
#pragma once

#include <cstdint>
#include <vector>

#include "bundle/plan.h"

namespace hart_edge {

void check_plan(const Plan &plan, const std::vector<Component> &components, const Table<Constant> &constants,
                std::int64_t scales, std::int64_t image_size, const Where &root);

}  // namespace hart_edge
