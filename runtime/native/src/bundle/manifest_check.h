// What the keys of a manifest say of each other, beside the plan: the second half of hart_edge/bundle/manifest.py.
// Every function throws the bundle error.
#pragma once

#include "bundle/manifest.h"

namespace hart_edge {

void check_tables(const Manifest &manifest);  // what scales and diffusion steps say about each other
void check_files(const Manifest &manifest);   // every file that something names is listed, constants lie inside theirs
void check_inputs(const Manifest &manifest);  // what the caller is asked for: token ids, or a context and its mask
void check_noise(const Manifest &manifest);   // the shapes of docs/randomness.md

}  // namespace hart_edge
