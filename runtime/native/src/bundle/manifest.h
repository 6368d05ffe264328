// manifest.json of a bundle, of format FORMAT_VERSION: bytes in, a Manifest out (hart_edge/bundle/manifest.py).
//
// docs/bundle.md is the specification. `parse` refuses everything that it does not allow, so whoever gets a Manifest
// may trust it. Nothing here touches a file: verify.cpp does.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bundle/plan.h"
#include "bundle/target.h"

namespace hart_edge {

inline constexpr std::int64_t FORMAT_VERSION = 3;
inline constexpr const char *MANIFEST_FILE = "manifest.json";
inline constexpr const char *CONSTANTS_FILE = "constants.bin";
inline constexpr std::size_t MOST_MANIFEST_BYTES = 16U << 20;

enum class PaddingSide { left, right };

template <>
struct Words<PaddingSide> {
    static constexpr std::array<std::string_view, 2> all{"left", "right"};
};

struct TokenizerSpec {
    std::string file;
    std::int64_t pad_token_id = 0;
    PaddingSide padding_side{};
    std::int64_t embeddings = 0;  // token ids that the text model knows; 0 where the bundle does not say
};

struct Residual {
    std::vector<std::int64_t> timesteps;
    std::int64_t noise_steps = 0;
};

struct FileEntry {
    std::int64_t bytes = 0;
    std::string sha256;
};

// Calibration, quality, instruction, licences and tools are checked but not stored: a runner has no use for them.
struct Manifest {
    std::string name;
    Precision precision{};
    TargetSpec target;
    std::int64_t image_size = 0;
    std::vector<std::int64_t> patch_nums;
    std::int64_t vocab_size = 0;
    std::int64_t z_channels = 0;
    std::int64_t context_tokens = 0;
    std::int64_t context_dim = 0;
    std::optional<TokenizerSpec> tokenizer;
    Sampling sampling;
    Residual residual;
    std::vector<Component> components;
    Table<FileEntry> files;
    Table<Constant> constants;
    Plan plan;           // of the speed exact
    Table<Plan> speeds;  // of the others that the bundle has, by their words
    std::optional<std::size_t> scales_of_quality;  // rows of the table of quality by scale, where there is one
};

// A component of a graph that the plan runs, so there is one.
const Component &component_of(const Manifest &manifest, ComponentName graph);

// The plan of a speed; nullptr where the bundle has none.
const Plan *plan_at(const Manifest &manifest, Speed speed);

struct SpeedPlan {
    Speed speed;
    const Plan *plan;
};

// The plans of all speeds that the bundle has, the exact one first.
std::vector<SpeedPlan> plans_of(const Manifest &manifest);

// Parse the bytes of a manifest.json. The bundle error names the JSON path of the value at fault.
Manifest parse(std::string_view data);

}  // namespace hart_edge
