// The one stream of randomness: (seed, purpose, scale, step) -> float32 uniforms or normals (runtime/random.py).
//
// docs/randomness.md is the specification; this follows it line by line. Compile with -ffp-contract=off and without
// -ffast-math: every operation is rounded by itself.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hart_edge {

// A stream: what the noise is for. purpose: 0 the token choice, 1 the residual diffusion.
struct Stream {
    std::uint64_t seed;
    std::uint64_t purpose;
    std::uint64_t scale;
    std::uint64_t step;
};

// The first n elements of a stream; element k is made of word k.
void uniform(const Stream &stream, float *out, std::size_t n);  // strictly inside (0, 1)
void normal(const Stream &stream, float *out, std::size_t n);   // 0 < |x| < 8.3

// What a single word becomes.
float uniform_of(std::uint64_t word);
float normal_of(std::uint64_t word);

}  // namespace hart_edge
