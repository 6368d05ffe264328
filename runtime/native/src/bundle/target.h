// What a bundle was built for: its target, and the requirements of its engines, which are compared with the machine
// before an engine is opened (hart_edge/bundle/target.py).
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bundle/fields.h"
#include "bundle/plan.h"

namespace hart_edge {

enum class Target { cpu, cuda, tensorrt, tensorrt_rtx };
enum class HardwareCompatibility { none, same_compute_capability, ampere_plus };

template <>
struct Words<Target> {
    static constexpr std::array<std::string_view, 4> all{"cpu", "cuda", "tensorrt", "tensorrt-rtx"};
};
template <>
struct Words<HardwareCompatibility> {
    static constexpr std::array<std::string_view, 3> all{"none", "same-compute-capability", "ampere-plus"};
};

// What the engines of a bundle need. `version` is that of the engine library that built them.
struct Engines {
    std::string version;
    std::string platform;
    std::vector<std::string> architectures;
    HardwareCompatibility hardware_compatibility{};
    bool version_compatible = false;
    std::int64_t images_at_once = 0;
};

struct TargetSpec {
    Target name{};
    std::optional<Engines> engines;  // empty where the components are graphs
};

TargetSpec read_target(const json::Value &value, const Where &where);

// Throw the bundle error unless a bundle has graphs or engines, not both, and engines have a profile for every step.
void check_engines(const TargetSpec &target, const std::vector<Component> &components, const Plan &plan,
                   std::int64_t scales);

}  // namespace hart_edge
