#include "api/random.h"

#include <array>
#include <cfloat>
#include <cmath>

namespace hart_edge {

namespace {

static_assert(FLT_EVAL_METHOD == 0, "docs/randomness.md: doubles are rounded to doubles, not kept in x87 registers");

__extension__ typedef unsigned __int128 Product;

// Wichura, Algorithm AS 241 (Applied Statistics 37, 1988), routine PPND16. Highest power first.
using Coefficients = std::array<double, 8>;
constexpr Coefficients CENTRAL_NUM{2509.0809287301226727, 33430.575583588128105, 67265.770927008700853,
                                   45921.953931549871457, 13731.693765509461125, 1971.5909503065514427,
                                   133.14166789178437745, 3.387132872796366608};
constexpr Coefficients CENTRAL_DEN{
    5226.495278852854561,  28729.085735721942674, 39307.89580009271061,  21213.794301586595867,
    5394.1960214247511077, 687.1870074920579083,  42.313330701600911252, 1.0};
constexpr Coefficients NEAR_NUM{7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177,
                                1.27045825245236838258,   3.64784832476320460504,   5.7694972214606914055,
                                4.6303378461565452959,    1.42343711074968357734};
constexpr Coefficients NEAR_DEN{
    1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
    0.68976733498510000455,    1.6763848301838038494,   2.05319162663775882187,   1.0};
constexpr Coefficients FAR_NUM{2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386,
                               0.026532189526576123093,   0.29656057182850489123,    1.7848265399172913358,
                               5.4637849111641143699,     6.6579046435011037772};
constexpr Coefficients FAR_DEN{
    2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
    0.0148753612908506148525,   0.13692988092273580531,   0.59983220655588793769,   1.0};

// log(2) in two parts: the first has 21 trailing zero bits, so that an exponent times it is exact.
constexpr double LN2_HI = 0x1.62e42fee00000p-1;
constexpr double LN2_LO = 0x1.a39ef35793c76p-33;
constexpr double SQRT_HALF = 0x1.6a09e667f3bcdp-1;

using Block = std::array<std::uint64_t, 4>;

// Four words, by Philox4x64 with ten rounds.
Block philox(const Stream &stream, std::uint64_t block) {
    std::uint64_t c0 = block;
    std::uint64_t c1 = stream.step;
    std::uint64_t c2 = stream.scale;
    std::uint64_t c3 = stream.purpose;
    std::uint64_t k0 = stream.seed;
    std::uint64_t k1 = 0;
    for (int round = 0; round < 10; ++round) {
        const Product p0 = static_cast<Product>(0xd2e7470ee14c6c93) * c0;
        const Product p1 = static_cast<Product>(0xca5a826395121157) * c2;
        c0 = static_cast<std::uint64_t>(p1 >> 64) ^ c1 ^ k0;
        c1 = static_cast<std::uint64_t>(p1);
        c2 = static_cast<std::uint64_t>(p0 >> 64) ^ c3 ^ k1;
        c3 = static_cast<std::uint64_t>(p0);
        k0 += 0x9e3779b97f4a7c15;
        k1 += 0xbb67ae8584caa73b;
    }
    return {c0, c1, c2, c3};
}

double horner(const Coefficients &coefficients, double r) {
    double value = coefficients[0];
    for (std::size_t k = 1; k < coefficients.size(); ++k) {
        value = value * r;
        value = value + coefficients[k];
    }
    return value;
}

// Natural logarithm for 0 < p < 0.1 by + - * / only, because the C library's differs between machines.
double log_small(double p) {
    int e = 0;
    double m = std::frexp(p, &e);  // exact
    if (m < SQRT_HALF) {
        m = m * 2.0;
        e = e - 1;
    }
    const double z = (m - 1.0) / (m + 1.0);
    const double t = z * z;
    double s = 1.0 / 21.0;  // 2 * atanh(z) = 2 * z * (1 + z^2/3 + z^4/5 + ...)
    for (int d = 19; d > 0; d -= 2) {
        s = s * t;
        s = s + 1.0 / d;
    }
    const double exponent = e;
    const double high = exponent * LN2_HI;
    const double low = exponent * LN2_LO;
    const double series = (2.0 * z) * s;
    return high + (low + series);
}

// x with P(X <= x) = u for standard normal X, by AS 241.
double inverse_normal(double u) {
    const double q = u - 0.5;
    if (std::fabs(q) <= 0.425) {
        const double square = q * q;
        const double r = 0.180625 - square;
        return (horner(CENTRAL_NUM, r) * q) / horner(CENTRAL_DEN, r);
    }
    const double r = std::sqrt(-log_small(q < 0.0 ? u : 1.0 - u));
    const double x = r <= 5.0 ? horner(NEAR_NUM, r - 1.6) / horner(NEAR_DEN, r - 1.6)
                              : horner(FAR_NUM, r - 5.0) / horner(FAR_DEN, r - 5.0);
    return q < 0.0 ? -x : x;
}

template <typename Convert>
void fill(const Stream &stream, float *out, std::size_t n, Convert convert) {
    for (std::size_t k = 0; k < n;) {
        for (const std::uint64_t word : philox(stream, k / 4)) {
            if (k < n) out[k++] = convert(word);
        }
    }
}

}  // namespace

float uniform_of(std::uint64_t word) {
    return (static_cast<float>(word >> 41) + 0.5F) * 0x1p-23F;
}

float normal_of(std::uint64_t word) {
    return static_cast<float>(inverse_normal((static_cast<double>(word >> 12) + 0.5) * 0x1p-52));
}

void uniform(const Stream &stream, float *out, std::size_t n) {
    fill(stream, out, n, uniform_of);
}
void normal(const Stream &stream, float *out, std::size_t n) {
    fill(stream, out, n, normal_of);
}

}  // namespace hart_edge
