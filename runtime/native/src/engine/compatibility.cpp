#include "engine/compatibility.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <vector>

#include "errors.h"

namespace hart_edge {

namespace {

#if defined(__aarch64__)
constexpr const char *PLATFORM = "linux-aarch64";
#else
constexpr const char *PLATFORM = "linux-x86_64";
#endif
constexpr const char *BUILD_AGAIN =
    "; build the engines for this machine with hart-edge engines BUNDLE --target tensorrt";
constexpr int OLDEST_AMPERE = 80;

struct Jetson {
    const char *architecture;
    const char *name;
};
constexpr std::array<Jetson, 4> JETSONS{
    {{"sm_72", "Jetson Xavier"}, {"sm_87", "Jetson Orin"}, {"sm_101", "Jetson Thor"}, {"sm_110", "Jetson Thor"}}};

const Jetson *jetson(const std::string &architecture) {
    const auto *found = std::find_if(JETSONS.begin(), JETSONS.end(),
                                     [&](const Jetson &each) { return architecture == each.architecture; });
    return found == JETSONS.end() ? nullptr : found;
}

std::string named(const std::string &architecture) {
    const Jetson *known = jetson(architecture);
    return known == nullptr ? architecture : architecture + " (" + known->name + ")";
}

bool runs_on(const Engines &engines, const std::string &architecture) {
    const auto &built = engines.architectures;
    if (std::find(built.begin(), built.end(), architecture) != built.end()) return true;
    if (engines.hardware_compatibility != HardwareCompatibility::ampere_plus) return false;
    return std::atoi(architecture.c_str() + 3) >= OLDEST_AMPERE && jetson(architecture) == nullptr;
}

std::string built_for(const Engines &engines) {
    if (engines.hardware_compatibility == HardwareCompatibility::ampere_plus) return "desktop GPUs from sm_80 on";
    std::string line;
    for (const std::string &each : engines.architectures) line += (line.empty() ? "" : ", ") + each;
    return line;
}

// The numbers that a version begins with.
std::vector<long> numbers(const std::string &version) {
    std::vector<long> found;
    const char *at = version.c_str();
    while (*at >= '0' && *at <= '9') {
        char *end = nullptr;
        found.push_back(std::strtol(at, &end, 10));
        if (*end != '.') break;
        at = end + 1;
    }
    return found;
}

// Require the version that built the engines, or a later one of the same major if they are version compatible.
void check_version(const Engines &engines, const std::string &version) {
    const std::vector<long> built = numbers(engines.version);
    const std::vector<long> found = numbers(version);
    if (found.empty() || built[0] != found[0]) {
        throw Error(Status::engine, "engines built with TensorRT " + engines.version + ", found TensorRT " + version +
                                        ": engines do not outlive a major version" + BUILD_AGAIN);
    }
    const auto shared = static_cast<std::ptrdiff_t>(std::min(built.size(), found.size()));
    if (std::equal(built.begin(), built.begin() + shared, found.begin())) return;  // one may lack the build number
    if (engines.version_compatible && found > built) return;
    const std::string expected = engines.version_compatible ? engines.version + " or later" : engines.version;
    throw Error(Status::engine,
                "engines built with TensorRT: expected " + expected + ", found " + version + BUILD_AGAIN);
}

}  // namespace

void check_machine(const TargetSpec &target, const std::string &version, const std::string &architecture) {
    if (!target.engines) {
        throw Error(Status::engine,
                    "this bundle holds graphs for tensorrt, no engines; build them on this machine with hart-edge "
                    "engines BUNDLE --target tensorrt");
    }
    const Engines &engines = *target.engines;
    if (engines.platform != PLATFORM) {
        throw Error(Status::engine,
                    "engines built for " + engines.platform + ", found a machine of " + PLATFORM + BUILD_AGAIN);
    }
    if (!runs_on(engines, architecture)) {
        throw Error(Status::engine, "engines built for " + built_for(engines) + ", found a GPU of " +
                                        named(architecture) + BUILD_AGAIN);
    }
    check_version(engines, version);
}

}  // namespace hart_edge
