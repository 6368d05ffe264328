#include "bundle/settings.h"

#include <string>

namespace hart_edge {

namespace {

double read_value(const SettingField &field, const json::Value &value, const Where &where) {
    switch (field.kind) {
        case SettingKind::number: return number(value, where, field.low, field.high);
        case SettingKind::flag: return flag(value, where) ? 1 : 0;
        case SettingKind::integer: break;
    }
    const auto low = static_cast<std::int64_t>(field.low);
    return static_cast<double>(integer(value, where, low, static_cast<std::int64_t>(field.high)));
}

std::vector<double> read_values(const SettingField &field, const json::Value &value, const Where &where) {
    if (!field.per_scale) return {read_value(field, value, where)};
    return many(value, where, {},
                [&](const json::Value &each, const Where &at) { return read_value(field, each, at); });
}

}  // namespace

Sampling read_sampling(const json::Value &value, const Where &where) {
    const json::Object &given = object(value, where);
    std::vector<std::string_view> keys;
    for (const SettingField &field : SETTINGS) keys.push_back(word(field.setting));
    if (json::find(given, "speed") != nullptr) keys.push_back("speed");  // bundles of before lack it
    check_keys(given, where, keys);
    Sampling sampling;
    for (const json::Member &member : given) {
        if (member.key == "speed") sampling.speed = choice<Speed>(member.value, Where(where, member.key));
        for (const SettingField &field : SETTINGS) {
            if (word(field.setting) != member.key) continue;
            sampling.set(field.setting, read_values(field, member.value, Where(where, member.key)));
        }
    }
    return sampling;
}

void check_tables(const Sampling &sampling, const Where &where, std::size_t scales, std::int64_t vocab_size) {
    for (const SettingField &field : SETTINGS) {
        const std::size_t entries = sampling.values(field.setting).size();
        if (!field.per_scale || entries == scales) continue;
        refuse(Where(where, word(field.setting)), std::to_string(scales) + " entries, one per scale",
               std::to_string(entries));
    }
    const Where top_k(where, word(Setting::top_k));
    for (std::size_t index = 0; index < scales; ++index) {
        const auto codes = static_cast<std::int64_t>(sampling.values(Setting::top_k)[index]);
        if (codes <= vocab_size) continue;
        refuse(Where(top_k, index), "at most " + std::to_string(vocab_size) + ", the vocab_size",
               std::to_string(codes));
    }
}

}  // namespace hart_edge
