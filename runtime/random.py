"""The one stream of randomness: (seed, purpose, scale, step) -> float32 uniforms or normals.

In: the seed of one image and what the noise is for. Out: arrays that are the same bits on every machine, in
every language and at any batch position. docs/randomness.md is the specification; this file follows it line
by line, and the test holds both against each other. The loop calls it for every noise buffer of a plan.
"""

import math
import operator
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.random import Philox
from numpy.typing import NDArray

from hart_edge.errors import InputError

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U64 = NDArray[np.uint64]

# Words drawn and converted at a time: the temporaries of a chunk stay in the cache. No effect on the result.
CHUNK = 1 << 13

# Wichura, Algorithm AS 241 (Applied Statistics 37, 1988), routine PPND16. Highest power first.
CENTRAL_NUM = (
    2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
    13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608,
)  # fmt: skip
CENTRAL_DEN = (
    5226.495278852854561, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
    5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0,
)  # fmt: skip
NEAR_NUM = (
    7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
    3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734,
)  # fmt: skip
NEAR_DEN = (
    1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
    0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0,
)  # fmt: skip
FAR_NUM = (
    2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
    0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772,
)  # fmt: skip
FAR_DEN = (
    2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
    0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0,
)  # fmt: skip

# log(2) in two parts: the first has 21 trailing zero bits, so that an exponent times it is exact.
LN2_HI = float.fromhex("0x1.62e42fee00000p-1")
LN2_LO = float.fromhex("0x1.a39ef35793c76p-33")
SQRT_HALF = float.fromhex("0x1.6a09e667f3bcdp-1")
# 2 * atanh(z) = 2 * z * (1 + z^2/3 + z^4/5 + ...): eleven terms, highest power first.
ATANH = tuple(1.0 / k for k in range(21, 0, -2))


class Purpose(IntEnum):
    """What the noise is for: the last word of the counter."""

    TOKENS = 0  # uniforms of the token choice
    RESIDUAL = 1  # normals of the residual diffusion: step 0 the start, step i the noise of denoising step i


def check_seed(seed: Any) -> int:
    """The seed as a Python int; InputError unless it is an integer (no bool) with 0 <= seed < 2**64."""
    return _word("seed", seed, "pass an integer such as 7, or leave the seed out")


def uniform(seed: int, purpose: Purpose, scale: int, step: int, shape: tuple[int, ...]) -> F32:
    """Uniforms strictly inside (0, 1), float32 of `shape`; element k in row-major order is made of word k.

    docs/randomness.md, "Uniforms". InputError for a seed, scale or step that is not a 64-bit word.
    """
    out = np.empty(math.prod(shape), np.float32)
    for start, words in _words(seed, purpose, scale, step, out.size):
        part = out[start : start + words.size]
        part[:] = words >> np.uint64(41)  # 23 bits: exact in float32, and so are the next two lines
        part += np.float32(0.5)
        part *= np.float32(2.0**-23)
    return out.reshape(shape)


def normal(seed: int, purpose: Purpose, scale: int, step: int, shape: tuple[int, ...]) -> F32:
    """Standard normals, float32 of `shape`, 0 < |x| < 8.3; element k in row-major order is made of word k.

    docs/randomness.md, "Normals": the inverse normal distribution by AS 241. InputError as for uniform.
    """
    out = np.empty(math.prod(shape), np.float32)
    for start, words in _words(seed, purpose, scale, step, out.size):
        u = (words >> np.uint64(12)).astype(np.float64)  # 52 bits: exact, and so are the next two lines
        u += 0.5
        u *= 2.0**-52
        out[start : start + words.size] = inverse_normal(u)
    return out.reshape(shape)


def inverse_normal(u: F64) -> F64:
    """x with P(X <= x) = u for standard normal X, by AS 241 from + - * / sqrt alone.

    u: (n,), 2**-53 <= u <= 1 - 2**-53.
    """
    q = u - 0.5
    x = np.empty_like(u)
    central = np.abs(q) <= 0.425
    c = q[central]
    r = 0.180625 - c * c
    x[central] = _horner(CENTRAL_NUM, r) * c / _horner(CENTRAL_DEN, r)

    tail = ~central
    q = q[tail]
    u = u[tail]
    r = np.sqrt(-log(np.where(q < 0.0, u, 1.0 - u)))
    near = r - 1.6
    y = _horner(NEAR_NUM, near) / _horner(NEAR_DEN, near)
    is_far = r > 5.0  # once in 36 thousand million numbers
    if is_far.any():
        far = r[is_far] - 5.0
        y[is_far] = _horner(FAR_NUM, far) / _horner(FAR_DEN, far)
    x[tail] = np.where(q < 0.0, -y, y)
    return x


def log(p: F64) -> F64:
    """Natural logarithm for 0 < p < 0.1, within 1 ulp, from + - * / alone: libm's differs by machine."""
    m, exponent = np.frexp(p)  # p = m * 2**exponent exactly, 0.5 <= m < 1
    small = m < SQRT_HALF
    m = np.where(small, m * 2.0, m)
    e = (exponent - small).astype(np.float64)
    z = (m - 1.0) / (m + 1.0)
    return e * LN2_HI + (e * LN2_LO + 2.0 * z * _horner(ATANH, z * z))


def _horner(coefficients: tuple[float, ...], r: F64) -> F64:
    """((c0 * r + c1) * r + c2) ..., products and sums rounded apart: two numpy calls, so nothing can fuse."""
    value = coefficients[0] * r
    value += coefficients[1]
    for c in coefficients[2:]:
        value *= r
        value += c
    return value


def _words(seed: int, purpose: Purpose, scale: int, step: int, n: int) -> Iterator[tuple[int, U64]]:
    """The first n words of a stream in chunks: (index of the chunk's first word, words)."""
    key = check_seed(seed)  # (seed, 0)
    remedy = "scales and steps count from 0"
    step, scale = _word("step", step, remedy), _word("scale", scale, remedy)
    counter = step << 64 | scale << 128 | Purpose(purpose) << 192
    # numpy adds 1 to the 256-bit counter before each block, the first one too; block 0 is to see it as here.
    philox = Philox(key=key, counter=(counter - 1) % (1 << 256))
    for start in range(0, n, CHUNK):
        yield start, philox.random_raw(min(CHUNK, n - start))


def _word(name: str, value: Any, remedy: str) -> int:
    expected = f"{name}: expected an integer from 0 to 2**64 - 1"
    if isinstance(value, bool | np.bool_):
        raise InputError(f"{expected}, found {value!r} ({type(value).__name__}); {remedy}")
    try:
        word = operator.index(value)
    except TypeError:
        raise InputError(f"{expected}, found {value!r} ({type(value).__name__}); {remedy}") from None
    if not 0 <= word < 1 << 64:
        raise InputError(f"{expected}, found {word}; {remedy}")
    return word
