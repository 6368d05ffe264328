// The one stream of randomness: (seed, purpose, scale, step) -> float32 uniforms or normals (runtime/random.py).
//
// docs/randomness.md is the specification; this follows it line by line. Compile with -ffp-contract=off and without
// -ffast-math, so that every operation is rounded on its own.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hart_edge {

// Names a stream by what its noise is for. purpose: 0 the choice of tokens, 1 the residual diffusion.
struct Stream {
    std::uint64_t seed;
    std::uint64_t purpose;
    std::uint64_t scale;
    std::uint64_t step;
};

// The first n elements of a stream; element k is made from word k.
void uniform(const Stream &stream, float *out, std::size_t n);  // strictly inside (0, 1)
void normal(const Stream &stream, float *out, std::size_t n);   // 0 < |x| < 8.3

// The element that a word becomes.
float uniform_of(std::uint64_t word);
float normal_of(std::uint64_t word);

}  // namespace hart_edge
