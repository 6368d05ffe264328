// The caller's sampling settings, checked against a bundle (runtime/settings.py).
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "bundle/manifest.h"
#include "hart_edge.h"

namespace hart_edge {

// Guidance and token choice. No top_k: the bundle's table, one entry per scale.
struct Settings {
    double cfg_scale;
    std::optional<std::int64_t> top_k;
    double top_p;
    bool smooth;

    // Write the one element of a buffer of kind setting.
    void value(const Buffer &buffer, const Sampling &sampling, void *into) const;
};

// Throws the input error.
Settings check_settings(const Sampling &sampling, const hart_edge_params &params);

}  // namespace hart_edge
