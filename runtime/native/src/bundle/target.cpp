#include "bundle/target.h"

#include <algorithm>

namespace hart_edge {

namespace {

using json::Value;

bool digit(char c) {
    return c >= '0' && c <= '9';
}

// Whether a text is two to four numbers with dots between them.
bool is_version(std::string_view text) {
    int numbers = 1;
    bool begun = false;
    for (const char c : text) {
        if (c == '.' ? !begun : !digit(c)) return false;
        if (c == '.') ++numbers;
        begun = c != '.';
    }
    return begun && numbers >= 2 && numbers <= 4;
}

bool is_platform(std::string_view text) {
    return text == "linux-x86_64" || text == "linux-aarch64" || text == "windows-x86_64" || text == "windows-aarch64";
}

bool is_architecture(std::string_view text) {
    if (text.substr(0, 3) != "sm_" || (text.size() != 5 && text.size() != 6) || text[3] == '0') return false;
    return std::all_of(text.begin() + 3, text.end(), digit);
}

constexpr std::array<Field<Engines>, 6> ENGINES{{
    {"version",
     [](Engines &into, const Value &value, const Where &where) {
         into.version = text_like(value, where, 40, is_version, "a version such as 10.13.3.9,");
     }},
    {"platform",
     [](Engines &into, const Value &value, const Where &where) {
         into.platform = text_like(value, where, 40, is_platform, "linux or windows, -, x86_64 or aarch64,");
     }},
    {"architectures",
     [](Engines &into, const Value &value, const Where &where) {
         into.architectures = many(value, where, {1, 32}, [](const Value &each, const Where &at) {
             return text_like(each, at, 8, is_architecture, "a GPU architecture such as sm_86,");
         });
     }},
    {"hardware_compatibility",
     [](Engines &into, const Value &value, const Where &where) {
         into.hardware_compatibility = choice<HardwareCompatibility>(value, where);
     }},
    {"version_compatible",
     [](Engines &into, const Value &value, const Where &where) { into.version_compatible = flag(value, where); }},
    {"images_at_once", [](Engines &into, const Value &value,
                          const Where &where) { into.images_at_once = integer(value, where, 1, 1024); }},
}};

constexpr std::array<Field<TargetSpec>, 2> TARGET{{
    {"name",
     [](TargetSpec &into, const Value &value, const Where &where) { into.name = choice<Target>(value, where); }},
    {"engines",
     [](TargetSpec &into, const Value &value, const Where &where) {
         if (value.as<json::Null>() == nullptr) into.engines = read(ENGINES, value, where);
     }},
}};

std::string listed(const std::vector<std::string> &texts) {
    std::string line;
    for (const std::string &text : texts) line += (line.empty() ? "" : ", ") + text;
    return line;
}

std::string scale_text(const std::optional<std::int64_t> &scale) {
    return scale ? std::to_string(*scale) : "null";
}

// Check that every profile serves an existing scale, no two the same one, and that every step has a profile.
void check_profiles(const Component &component, const Where &where, const Plan &plan, std::int64_t scales) {
    const Where engine(where, "engine");
    const Where at(engine, "profiles");
    const std::vector<std::optional<std::int64_t>> &profiles = *component.profiles;
    for (std::size_t position = 0; position < profiles.size(); ++position) {
        const std::optional<std::int64_t> &scale = profiles[position];
        const auto here = profiles.begin() + static_cast<std::ptrdiff_t>(position);
        if (scale && *scale >= scales) {
            refuse(Where(at, position), "null or an integer from 0 to " + std::to_string(scales - 1),
                   std::to_string(*scale));
        }
        if (std::find(profiles.begin(), here, scale) != here) {
            refuse(Where(at, position), "every scale once", scale_text(scale) + " twice");
        }
    }
    for (const Step &step : plan.steps) {
        if (step.graph != component.name) continue;
        if (std::find(profiles.begin(), profiles.end(), step.scale) != profiles.end()) continue;
        refuse(at, "a profile for scale " + scale_text(step.scale) + ", which the plan runs", "none");
    }
}

}  // namespace

TargetSpec read_target(const Value &value, const Where &where) {
    return read(TARGET, value, where);
}

void check_engines(const TargetSpec &target, const std::vector<Component> &components, const Plan &plan,
                   std::int64_t scales) {
    const Where top;
    const Where target_at(top, "target");
    const Where engines_at(target_at, "engines");
    if (target.engines) {
        if (target.name != Target::tensorrt && target.name != Target::tensorrt_rtx) {
            refuse(engines_at, "null for " + std::string(word(target.name)) + ", which runs graphs", "an object");
        }
        std::vector<std::string> sorted = target.engines->architectures;
        std::sort(sorted.begin(), sorted.end());
        if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
            refuse(Where(engines_at, "architectures"), "every architecture once",
                   show(listed(target.engines->architectures)));
        }
    }
    const std::string_view suffix = target.engines ? ".engine" : ".onnx";
    const Where all(top, "components");
    for (std::size_t index = 0; index < components.size(); ++index) {
        const Component &component = components[index];
        const Where where(all, index);
        if (!ends_with(component.file, suffix)) {
            refuse(Where(where, "file"), "a path that ends with " + std::string(suffix), show(component.file));
        }
        if (component.profiles) check_profiles(component, where, plan, scales);
    }
}

}  // namespace hart_edge
