#include "api/settings.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace hart_edge {

namespace {

std::string shown(double value) {
    if (std::trunc(value) == value && std::fabs(value) < 1e15) return std::to_string(static_cast<std::int64_t>(value));
    char text[32];
    std::snprintf(text, sizeof text, "%.17g", value);
    char shorter[32];
    for (int digits = 1; digits < 17; ++digits) {  // the shortest that reads back as the same number
        std::snprintf(shorter, sizeof shorter, "%.*g", digits, value);
        if (std::strtod(shorter, nullptr) == value) return shorter;
    }
    return text;
}

[[noreturn]] void refuse(const std::string &message) {
    throw Error(Status::input, message);
}

// The settings that a caller may ask for, in the order of the checks.
struct Asked {
    Setting setting;
    double (*value)(const hart_edge_params &params);
    double of_bundle;         // the value that asks for the bundle's own
    std::string_view range;   // what is allowed, in words; "" where the bundle's largest value is the limit
    bool (*fits)(double value);
    std::string_view remedy;  // the end of a refusal
    bool shows_default;       // whether the bundle's own value follows the remedy
};

constexpr std::array<Asked, 4> ASKED{{
    {Setting::cfg_scale,
     [](const hart_edge_params &params) { return params.cfg_scale; },
     HART_EDGE_CFG_SCALE_OF_BUNDLE,
     "0 to 100",
     [](double value) { return value >= 0 && value <= 100; },
     "; 0 turns guidance off, the default is ",
     true},
    {Setting::top_k,
     [](const hart_edge_params &params) { return static_cast<double>(params.top_k); },
     HART_EDGE_TOP_K_OF_BUNDLE,
     "",
     [](double value) { return value >= 1; },
     "; 1 always takes the likeliest code",
     false},
    {Setting::top_p,
     [](const hart_edge_params &params) { return params.top_p; },
     HART_EDGE_TOP_P_OF_BUNDLE,
     "above 0 and at most 1",
     [](double value) { return value > 0 && value <= 1; },
     "; 1 keeps every candidate",
     false},
    {Setting::smooth,
     [](const hart_edge_params &params) { return static_cast<double>(params.smooth); },
     HART_EDGE_SMOOTH_OF_BUNDLE,
     "1, 0 or HART_EDGE_SMOOTH_OF_BUNDLE",
     [](double value) { return value == 0 || value == 1; },
     "",
     false},
}};

double checked(const Asked &asked, const Sampling &own, double value) {
    const std::string name(word(asked.setting));
    if (!std::isfinite(value)) refuse(name + ": expected a finite number, found " + shown(value));
    const std::vector<double> &values = own.values(asked.setting);
    const double most = *std::max_element(values.begin(), values.end());
    const bool table = asked.range.empty();
    if (asked.fits(value) && (!table || value <= most)) return value;
    const std::string range = table ? "1 to " + shown(most) : std::string(asked.range);
    refuse(name + ": expected " + range + ", found " + shown(value) + std::string(asked.remedy) +
           (asked.shows_default ? shown(values[0]) : ""));
}

Speed checked_speed(const Manifest &manifest, hart_edge_speed value) {
    if (value < HART_EDGE_SPEED_EXACT || value > HART_EDGE_SPEED_FAST) {
        refuse("speed: expected HART_EDGE_SPEED_EXACT, _BALANCED, _FAST or _OF_BUNDLE, found " + std::to_string(value));
    }
    const auto speed = static_cast<Speed>(value - HART_EDGE_SPEED_EXACT);
    if (plan_at(manifest, speed) != nullptr) return speed;
    std::string has(word(Speed::exact));
    for (const auto &[name, plan] : manifest.speeds) has += ", " + name;
    refuse("speed: expected " + has + ", which is what this bundle has, found '" + std::string(word(speed)) +
           "'; bundles for cpu and cuda have all of them: build it again");
}

// The bits of the nearest FP16 number, ties to even.
std::uint16_t fp16_bits(double value) {
    const std::uint16_t sign = std::signbit(value) ? 0x8000 : 0;
    const double size = std::fabs(value);
    if (size >= 65520.0) return static_cast<std::uint16_t>(sign | 0x7C00);
    if (size < 0x1p-14) return static_cast<std::uint16_t>(sign | static_cast<int>(std::nearbyint(size * 0x1p24)));
    int exponent = 0;
    const double fraction = std::frexp(size, &exponent);                        // 0.5 <= fraction < 1
    const auto mantissa = static_cast<int>(std::nearbyint(fraction * 2048.0));  // 1024 to 2048; 2048 carries
    return static_cast<std::uint16_t>(sign | (((exponent + 14) << 10) + mantissa - 1024));
}

template <typename T>
void store(void *into, T value) {
    std::memcpy(into, &value, sizeof value);
}

}  // namespace

void store_setting(const Sampling &sampling, const Buffer &buffer, void *into) {
    const double number = sampling.value(buffer.setting, buffer.scale);
    const double most = buffer.dtype == Dtype::uint8 ? 255 : buffer.dtype == Dtype::int8 ? 127 : 65504;
    if (itemsize(buffer.dtype) < 4 && number > most) {
        throw Error(Status::bundle, "manifest.json: expected " + std::string(word(buffer.setting)) +
                                        " in a dtype that holds it, found " + shown(number) + " in " +
                                        std::string(word(buffer.dtype)) + "; " + std::string(REMEDY));
    }
    switch (buffer.dtype) {
        case Dtype::float32: return store(into, static_cast<float>(number));
        case Dtype::float16: return store(into, fp16_bits(number));
        case Dtype::int64: return store(into, static_cast<std::int64_t>(number));
        case Dtype::int32: return store(into, static_cast<std::int32_t>(number));
        case Dtype::uint8: return store(into, static_cast<std::uint8_t>(number));
        case Dtype::int8: return store(into, static_cast<std::int8_t>(number));
        case Dtype::boolean: return store(into, static_cast<std::uint8_t>(number != 0));
    }
}

Sampling check_settings(const Manifest &manifest, const hart_edge_params &params) {
    const Sampling &own = manifest.sampling;
    Sampling sampling = own;
    if (params.speed != HART_EDGE_SPEED_OF_BUNDLE) sampling.speed = checked_speed(manifest, params.speed);
    for (const Asked &asked : ASKED) {
        const double value = asked.value(params);
        if (!(value == asked.of_bundle)) sampling.fill(asked.setting, checked(asked, own, value));
    }
    return sampling;
}

}  // namespace hart_edge
