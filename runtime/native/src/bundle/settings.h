// How codes are drawn: the settings of a bundle, each declared in one table (hart_edge/bundle/settings.py).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "bundle/fields.h"

namespace hart_edge {

enum class Setting { cfg_scale, top_k, top_p, smooth, guidance_ratio, temperature };

template <>
struct Words<Setting> {
    static constexpr std::array<std::string_view, 6> all{"cfg_scale", "top_k",          "top_p",
                                                         "smooth",    "guidance_ratio", "temperature"};
};

// How much of a picture's arithmetic is done: the one setting that is no number, it chooses among a bundle's plans.
enum class Speed { exact, balanced, fast };

template <>
struct Words<Speed> {
    static constexpr std::array<std::string_view, 3> all{"exact", "balanced", "fast"};
};

enum class SettingKind { number, integer, flag };

// What a manifest may hold: one value, or a table with one entry per scale.
struct SettingField {
    Setting setting;
    SettingKind kind;
    bool per_scale;
    double low = 0;
    double high = 1;
};

// All settings, in the order of the manifest.
inline constexpr std::array<SettingField, 6> SETTINGS{{
    {Setting::cfg_scale, SettingKind::number, false, 0, 100},
    {Setting::top_p, SettingKind::number, false, 1e-6, 1},
    {Setting::smooth, SettingKind::flag, false},
    {Setting::top_k, SettingKind::integer, true, 1, 1 << 20},
    {Setting::guidance_ratio, SettingKind::number, true, 0, 1000},
    {Setting::temperature, SettingKind::number, true, 1e-6, 1000},
}};

constexpr bool per_scale(Setting setting) {
    for (const SettingField &field : SETTINGS) {
        if (field.setting == setting) return field.per_scale;
    }
    return false;
}

// The settings of a bundle, or those that a caller asked for instead. Every value is exact in a double.
class Sampling {
 public:
    Speed speed = Speed::exact;

    // The values of a setting: one, or one per scale.
    [[nodiscard]] const std::vector<double> &values(Setting setting) const {
        return values_[static_cast<std::size_t>(setting)];
    }
    void set(Setting setting, std::vector<double> values) {
        values_[static_cast<std::size_t>(setting)] = std::move(values);
    }
    [[nodiscard]] double value(Setting setting, std::optional<std::int64_t> scale = {}) const {
        return values(setting)[static_cast<std::size_t>(scale.value_or(0))];
    }
    // Use the same value at every scale.
    void fill(Setting setting, double value) { set(setting, std::vector<double>(values(setting).size(), value)); }

 private:
    std::array<std::vector<double>, SETTINGS.size()> values_;
};

Sampling read_sampling(const json::Value &value, const Where &where);

// Check the tables against the number of scales and of codes. Throws the bundle error.
void check_tables(const Sampling &sampling, const Where &where, std::size_t scales, std::int64_t vocab_size);

}  // namespace hart_edge
