#include "bundle/manifest.h"

#include <algorithm>
#include <unordered_set>

#include "bundle/manifest_check.h"
#include "bundle/plan_check.h"
#include "bundle/speeds.h"

namespace hart_edge {

namespace {

using json::Value;

constexpr std::size_t MOST_DEPTH = 64;  // of lists and objects; the format needs seven
constexpr std::int64_t MOST_COUNT = 1 << 20;

std::int64_t read_count(const Value &value, const Where &where) {
    return integer(value, where, 1, MOST_COUNT);
}

std::string read_line(const Value &value, const Where &where) {
    return text(value, where, 1000);
}

std::string read_sha256(const Value &value, const Where &where) {
    const Allowed hex = [](char32_t c, std::size_t) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
    return text(value, where, 64, hex, "64 lower-case hex digits,", 64);
}

std::string read_bundle_name(const Value &value, const Where &where) {
    const Allowed allowed = [](char32_t c, std::size_t index) {
        const bool letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        return letter || (index > 0 && (c == '.' || c == '_' || c == '-'));
    };
    return text(value, where, 100, allowed, "a name of A-Z a-z 0-9 . _ -", 1);
}

struct Checked {};  // of a part that the runtime has no use for

constexpr std::array<Field<Checked>, 2> INSTRUCTION{{
    {"tokens", [](Checked &, const Value &value, const Where &where) { integer(value, where, 1, 8192); }},
    {"sha256", [](Checked &, const Value &value, const Where &where) { read_sha256(value, where); }},
}};

constexpr std::array<Field<TokenizerSpec>, 5> TOKENIZER{{
    {"file",
     [](TokenizerSpec &into, const Value &value, const Where &where) { into.file = relative_path(value, where); }},
    {"pad_token_id", [](TokenizerSpec &into, const Value &value,
                        const Where &where) { into.pad_token_id = integer(value, where, 0, INT32_MAX); }},
    {"padding_side", [](TokenizerSpec &into, const Value &value,
                        const Where &where) { into.padding_side = choice<PaddingSide>(value, where); }},
    {"embeddings", [](TokenizerSpec &into, const Value &value,
                      const Where &where) { into.embeddings = integer(value, where, 1, INT32_MAX); }},
    {"instruction",
     [](TokenizerSpec &, const Value &value, const Where &where) { read(INSTRUCTION, value, where); }},
}};

// The keys that a tokenizer has: the last two may be absent.
bool tokenizer_has(const json::Object &given, std::string_view key) {
    if (key != "embeddings" && key != "instruction") return true;
    const Value *value = json::find(given, key);
    return value != nullptr && value->as<json::Null>() == nullptr;
}

constexpr std::array<Field<Residual>, 2> RESIDUAL{{
    {"timesteps",
     [](Residual &into, const Value &value, const Where &where) {
         into.timesteps = many(value, where, {1, 1000},
                               [](const Value &each, const Where &at) { return integer(each, at, 0, 99'999); });
     }},
    {"noise_steps",
     [](Residual &into, const Value &value, const Where &where) { into.noise_steps = read_count(value, where); }},
}};

constexpr std::array<Field<FileEntry>, 2> FILE_ENTRY{{
    {"bytes", [](FileEntry &into, const Value &value,
                 const Where &where) { into.bytes = integer(value, where, 0, MOST_BYTES); }},
    {"sha256",
     [](FileEntry &into, const Value &value, const Where &where) { into.sha256 = read_sha256(value, where); }},
}};

constexpr std::array<Field<Checked>, 2> CALIBRATION{{
    {"prompts", [](Checked &, const Value &value, const Where &where) { read_count(value, where); }},
    {"ranges_sha256", [](Checked &, const Value &value, const Where &where) { read_sha256(value, where); }},
}};

template <int LOW, int HIGH>
void check_number(Checked &, const Value &value, const Where &where) {
    number(value, where, LOW, HIGH);
}

void check_most(Checked &, const Value &value, const Where &where) {
    number(value, where, 0, 1e30);
}

constexpr std::array<Field<Checked>, 6> SCALE_QUALITY{{
    {"cosine", check_number<-1, 1>},
    {"largest_error", check_most},
    {"top_1", check_number<0, 1>},
    {"kl", check_most},
    {"guided_top_1", check_number<0, 1>},
    {"guided_kl", check_most},
}};

struct Quality {
    std::size_t scales = 0;
};

constexpr std::array<Field<Quality>, 3> QUALITY{{
    {"prompts", [](Quality &, const Value &value, const Where &where) { read_count(value, where); }},
    {"scales",
     [](Quality &into, const Value &value, const Where &where) {
         const auto entry = [](const Value &each, const Where &at) { return read(SCALE_QUALITY, each, at); };
         into.scales = many(value, where, {1, 64}, entry).size();
     }},
    {"decoder_psnr",
     [](Quality &, const Value &value, const Where &where) {
         if (value.as<json::Null>() == nullptr) number(value, where, 0, 1000);
     }},
}};

constexpr std::array<Field<Checked>, 3> LICENCE{{
    {"part", [](Checked &, const Value &value, const Where &where) { read_line(value, where); }},
    {"spdx", [](Checked &, const Value &value, const Where &where) { read_line(value, where); }},
    {"attribution", [](Checked &, const Value &value, const Where &where) { text(value, where, 100'000); }},
}};

// A key of `speeds`: any speed but the exact one, which every bundle has as its `plan`.
std::string read_further_speed(const Value &value, const Where &where) {
    const Speed speed = choice<Speed>(value, where);
    if (speed == Speed::exact) refuse(where, "one of balanced, fast", show(value));
    return std::string(word(speed));
}

constexpr std::array<Field<Manifest>, 22> MANIFEST{{
    {"format_version",
     [](Manifest &, const Value &value, const Where &where) { integer(value, where, FORMAT_VERSION, FORMAT_VERSION); }},
    {"name",
     [](Manifest &into, const Value &value, const Where &where) { into.name = read_bundle_name(value, where); }},
    {"precision",
     [](Manifest &into, const Value &value, const Where &where) { into.precision = choice<Precision>(value, where); }},
    {"target", [](Manifest &into, const Value &value, const Where &where) { into.target = read_target(value, where); }},
    {"image_size",
     [](Manifest &into, const Value &value, const Where &where) { into.image_size = integer(value, where, 16, 8192); }},
    {"patch_nums",
     [](Manifest &into, const Value &value, const Where &where) {
         into.patch_nums =
             many(value, where, {1, 64}, [](const Value &each, const Where &at) { return integer(each, at, 1, 512); });
     }},
    {"vocab_size",
     [](Manifest &into, const Value &value, const Where &where) { into.vocab_size = read_count(value, where); }},
    {"z_channels",
     [](Manifest &into, const Value &value, const Where &where) { into.z_channels = read_count(value, where); }},
    {"context_tokens", [](Manifest &into, const Value &value,
                          const Where &where) { into.context_tokens = integer(value, where, 1, 8192); }},
    {"context_dim",
     [](Manifest &into, const Value &value, const Where &where) { into.context_dim = read_count(value, where); }},
    {"tokenizer",
     [](Manifest &into, const Value &value, const Where &where) {
         if (value.as<json::Null>() == nullptr) into.tokenizer = read(TOKENIZER, value, where, tokenizer_has);
     }},
    {"sampling",
     [](Manifest &into, const Value &value, const Where &where) { into.sampling = read_sampling(value, where); }},
    {"residual",
     [](Manifest &into, const Value &value, const Where &where) { into.residual = read(RESIDUAL, value, where); }},
    {"components",
     [](Manifest &into, const Value &value, const Where &where) {
         into.components = many(value, where, {1, Words<ComponentName>::all.size()}, read_component);
     }},
    {"files",
     [](Manifest &into, const Value &value, const Where &where) {
         into.files = table(value, where, {1, 10'000}, relative_path,
                            [](const Value &each, const Where &at) { return read(FILE_ENTRY, each, at); });
     }},
    {"constants", [](Manifest &into, const Value &value,
                     const Where &where) { into.constants = table(value, where, {}, read_name, read_constant); }},
    {"plan", [](Manifest &into, const Value &value, const Where &where) { into.plan = read_plan(value, where); }},
    {"calibration",
     [](Manifest &, const Value &value, const Where &where) {
         if (value.as<json::Null>() == nullptr) read(CALIBRATION, value, where);
     }},
    {"quality",
     [](Manifest &into, const Value &value, const Where &where) {
         if (value.as<json::Null>() == nullptr) into.scales_of_quality = read(QUALITY, value, where).scales;
     }},
    {"licences",
     [](Manifest &, const Value &value, const Where &where) {
         many(value, where, {0, 100}, [](const Value &each, const Where &at) { return read(LICENCE, each, at); });
     }},
    {"tools",
     [](Manifest &, const Value &value, const Where &where) {
         table(value, where, {0, 1000}, read_line, read_line);
     }},
    {"speeds",
     [](Manifest &into, const Value &value, const Where &where) {
         into.speeds = table(value, where, {}, read_further_speed, read_plan);
     }},
}};

// Whether a manifest has a key: `speeds` is absent where there is none beside the exact one.
bool manifest_has(const json::Object &given, std::string_view key) {
    if (key != "speeds") return true;
    const Value *value = json::find(given, key);
    if (value == nullptr || value->as<json::Null>() != nullptr) return false;
    const auto *held = value->as<json::Object>();
    return held == nullptr || !held->empty();
}

Value load(std::string_view data) {
    try {
        return json::parse(data, {MOST_MANIFEST_BYTES, MOST_DEPTH});
    } catch (const json::Fault &fault) {
        refuse(Where(), fault.expected, fault.found);
    }
}

}  // namespace

Manifest parse(std::string_view data) {
    const Value value = load(data);
    const Where top;
    const auto *held = value.as<json::Object>();
    if (held == nullptr) refuse(top, "an object", show(value));
    const Value *version = json::find(*held, "format_version");  // checked first: other versions have other keys
    const auto *number = version == nullptr ? nullptr : version->as<json::Number>();
    if (number == nullptr || !number->is_integer || !number->fits || number->integer != FORMAT_VERSION) {
        std::string remedy(REMEDY);
        if (number != nullptr && number->is_integer && number->value > 0) {
            remedy = number->value > FORMAT_VERSION ? "update hart-edge, or " + remedy
                                                    : "build it again with hart-edge upgrade BUNDLE";
        }
        refuse(Where(top, "format_version"), std::to_string(FORMAT_VERSION),
               version == nullptr ? "no such key" : show(*version), remedy);
    }
    Manifest manifest = read(MANIFEST, value, top, manifest_has);
    check_tables(manifest);
    check_files(manifest);
    const auto check = [&manifest](const Plan &plan, const Where &where) {
        const auto scales = static_cast<std::int64_t>(manifest.patch_nums.size());
        check_plan(plan, manifest.components, manifest.constants, scales, manifest.image_size, where);
        check_engines(manifest.target, manifest.components, plan, scales);
        check_inputs(manifest, plan, where);
        check_noise(manifest, plan, where);
    };
    check(manifest.plan, Where(top, "plan"));
    const Where speeds(top, "speeds");
    for (const auto &[speed, plan] : manifest.speeds) check(plan, Where(speeds, speed));
    if (manifest.speeds.size() > 0 && manifest.target.engines) {
        refuse(speeds, "none beside engines, which have one profile a scale", "an object");
    }
    check_speeds(manifest.sampling, manifest.plan, manifest.speeds);
    return manifest;
}

const Component &component_of(const Manifest &manifest, ComponentName graph) {
    const auto named = [graph](const Component &each) { return each.name == graph; };
    return *std::find_if(manifest.components.begin(), manifest.components.end(), named);
}

const Plan *plan_at(const Manifest &manifest, Speed speed) {
    return speed == Speed::exact ? &manifest.plan : manifest.speeds.find(std::string(word(speed)));
}

std::vector<SpeedPlan> plans_of(const Manifest &manifest) {
    std::vector<SpeedPlan> plans;
    for (std::size_t number = 0; number < Words<Speed>::all.size(); ++number) {
        const auto speed = static_cast<Speed>(number);
        const Plan *plan = plan_at(manifest, speed);
        if (plan != nullptr) plans.push_back({speed, plan});
    }
    return plans;
}

}  // namespace hart_edge
