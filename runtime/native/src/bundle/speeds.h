// The plans of a bundle's speeds beside the exact one, and what they must share with it (hart_edge/bundle/speeds.py).
#pragma once

#include "bundle/plan.h"

namespace hart_edge {

// Throw the bundle error unless the default speed is there, and every plan does for a prompt what the exact one does.
void check_speeds(const Sampling &sampling, const Plan &plan, const Table<Plan> &further);

}  // namespace hart_edge
