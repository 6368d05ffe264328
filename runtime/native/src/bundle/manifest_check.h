// Whether the keys of a manifest, other than the plan, agree with each other (hart_edge/bundle/manifest.py, second
// half). Every function throws the bundle error.
#pragma once

#include "bundle/manifest.h"

namespace hart_edge {

void check_tables(const Manifest &manifest);  // tables have one entry per scale or per diffusion step
void check_files(const Manifest &manifest);   // every file that is named is listed; constants lie inside their file

// Of a plan, which stands at `root`: the caller passes token ids, or a context and its mask; noise has the shapes of
// docs/randomness.md.
void check_inputs(const Manifest &manifest, const Plan &plan, const Where &root);
void check_noise(const Manifest &manifest, const Plan &plan, const Where &root);

}  // namespace hart_edge
