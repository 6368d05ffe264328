// The caller's sampling settings, checked against a bundle (runtime/settings.py).
#pragma once

#include "bundle/manifest.h"
#include "hart_edge.h"

namespace hart_edge {

// The bundle's settings with what the caller asked for in their place. Throws the input error.
Sampling check_settings(const Manifest &manifest, const hart_edge_params &params);

// Write the one element of a buffer of kind setting.
void store_setting(const Sampling &sampling, const Buffer &buffer, void *into);

}  // namespace hart_edge
