#include "api/settings.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace hart_edge {

namespace {

constexpr double MOST_GUIDANCE = 100.0;

std::string shown(double value) {
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

double finite(const char *name, double value) {
    if (!std::isfinite(value)) refuse(std::string(name) + ": expected a finite number, found " + shown(value));
    return value;
}

// The nearest float16, ties to even, as bits.
std::uint16_t half(double value) {
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

void Settings::value(const Buffer &buffer, const Sampling &sampling, void *into) const {
    const auto scale = static_cast<std::size_t>(buffer.scale.value_or(0));
    double number = 0;  // every setting is exact in a double
    switch (buffer.setting) {
        case Setting::cfg_scale: number = cfg_scale; break;
        case Setting::top_k: number = static_cast<double>(top_k.value_or(sampling.top_k[scale])); break;
        case Setting::top_p: number = top_p; break;
        case Setting::smooth: number = smooth ? 1 : 0; break;
        case Setting::guidance_ratio: number = sampling.guidance_ratio[scale]; break;
        case Setting::temperature: number = sampling.temperature[scale]; break;
    }
    const double most = buffer.dtype == Dtype::uint8 ? 255 : buffer.dtype == Dtype::int8 ? 127 : 65504;
    if (itemsize(buffer.dtype) < 4 && number > most) {
        throw Error(Status::bundle, "manifest.json: expected " + std::string(word(buffer.setting)) +
                                        " in a dtype that holds it, found " + shown(number) + " in " +
                                        std::string(word(buffer.dtype)) + "; " + std::string(REMEDY));
    }
    switch (buffer.dtype) {
        case Dtype::float32: return store(into, static_cast<float>(number));
        case Dtype::float16: return store(into, half(number));
        case Dtype::int64: return store(into, static_cast<std::int64_t>(number));
        case Dtype::int32: return store(into, static_cast<std::int32_t>(number));
        case Dtype::uint8: return store(into, static_cast<std::uint8_t>(number));
        case Dtype::int8: return store(into, static_cast<std::int8_t>(number));
        case Dtype::boolean: return store(into, static_cast<std::uint8_t>(number != 0));
    }
}

Settings check_settings(const Sampling &sampling, const hart_edge_params &params) {
    const bool own_guidance = params.cfg_scale == HART_EDGE_CFG_SCALE_OF_BUNDLE;
    const double guidance = own_guidance ? sampling.cfg_scale : finite("cfg_scale", params.cfg_scale);
    if (!(guidance >= 0 && guidance <= MOST_GUIDANCE)) {
        refuse("cfg_scale: expected 0 to 100, found " + shown(params.cfg_scale) +
               "; 0 turns guidance off, the default is " + shown(sampling.cfg_scale));
    }
    std::optional<std::int64_t> candidates;
    if (params.top_k != HART_EDGE_TOP_K_OF_BUNDLE) {
        const std::int64_t most = *std::max_element(sampling.top_k.begin(), sampling.top_k.end());
        if (params.top_k < 1 || params.top_k > most) {
            refuse("top_k: expected 1 to " + std::to_string(most) + ", found " + std::to_string(params.top_k) +
                   "; 1 always takes the likeliest code");
        }
        candidates = params.top_k;
    }
    const bool own_share = params.top_p == HART_EDGE_TOP_P_OF_BUNDLE;
    const double share = own_share ? sampling.top_p : finite("top_p", params.top_p);
    if (!(share > 0 && share <= 1)) {
        refuse("top_p: expected above 0 and at most 1, found " + shown(params.top_p) + "; 1 keeps every candidate");
    }
    if (params.smooth != HART_EDGE_SMOOTH_OF_BUNDLE && params.smooth != 0 && params.smooth != 1) {
        refuse("smooth: expected 1, 0 or HART_EDGE_SMOOTH_OF_BUNDLE, found " + std::to_string(params.smooth));
    }
    const bool own_smooth = params.smooth == HART_EDGE_SMOOTH_OF_BUNDLE;
    return {guidance, candidates, share, own_smooth ? sampling.smooth : params.smooth == 1};
}

}  // namespace hart_edge
