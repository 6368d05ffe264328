"""Noise: docs/randomness.md, a scalar implementation of that page, and runtime/random.py must agree bit by bit.

The section "The page" is written from docs/randomness.md, reads constants and coefficients out of its tables, and uses
nothing of runtime/random.py.
"""

import math
import re
import statistics
from collections.abc import Callable
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import pytest

from hart_edge.errors import HartEdgeError, InputError
from hart_edge.runtime.random import CHUNK, Purpose, check_seed, inverse_normal, log, normal, uniform

PAGE = Path(__file__).parents[2] / "docs" / "randomness.md"
LARGEST_SEED = 2**64 - 1

# --- The page --------------------------------------------------------------------------------------


def table(heading: str, first_column: str) -> list[list[str]]:
    """The rows of the first table below a heading that begins with that column."""
    section = re.split(rf"^#+ {heading}$", PAGE.read_text("utf-8"), flags=re.M)[1]
    rows = section[section.index(f"| {first_column} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


CONSTANTS = {name: int(value, 16) for name, value, _ in table("Words", "constant")}
LOG_CONSTANTS = {name: float.fromhex(value) for name, value in table("Logarithm", "constant")}
PURPOSES = {row[0]: int(row[1]) for row in table("Where each stream is used", "purpose")}
COEFFICIENTS = {name: table(name.title(), "k") for name in ("central", "near", "far")}
STREAMS = table("Streams", "seed")
SINGLE_WORDS = table("Single words", "word")
MASK = 2**64 - 1


def philox_block(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        p0, p1 = CONSTANTS["M0"] * c0, CONSTANTS["M1"] * c2
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & MASK, (p0 >> 64) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + CONSTANTS["W0"]) & MASK, (k1 + CONSTANTS["W1"]) & MASK
    return c0, c1, c2, c3


def page_words(seed: int, purpose: int, scale: int, step: int, n: int) -> list[int]:
    blocks = [philox_block((block, step, scale, purpose), (seed, 0)) for block in range(-(-n // 4))]
    return [word for block in blocks for word in block][:n]


def page_uniform(word: int) -> float:
    return ((word >> 41) + 0.5) * 2.0**-23


def page_log(p: float) -> float:
    m, e = math.frexp(p)
    if m < LOG_CONSTANTS["SQRT_HALF"]:
        m, e = 2 * m, e - 1
    z = (m - 1) / (m + 1)
    t = z * z
    s = 1 / 21
    for d in (19, 17, 15, 13, 11, 9, 7, 5, 3, 1):
        s = s * t + 1 / d
    return (e * LOG_CONSTANTS["LN2_HI"]) + ((e * LOG_CONSTANTS["LN2_LO"]) + ((2 * z) * s))


def page_polynomial(name: str, column: int, r: float) -> float:
    rows = COEFFICIENTS[name]
    value = float.fromhex(rows[0][column])
    for row in rows[1:]:
        value = value * r + float.fromhex(row[column])
    return value


def page_normal(word: int) -> float:
    u = ((word >> 12) + 0.5) * 2.0**-52
    q = u - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        x = (page_polynomial("central", 2, r) * q) / page_polynomial("central", 4, r)
    else:
        r = math.sqrt(-page_log(u if q < 0 else 1 - u))
        name, r = ("near", r - 1.6) if r <= 5 else ("far", r - 5)
        x = page_polynomial(name, 2, r) / page_polynomial(name, 4, r)
        if q < 0:
            x = -x
    return float(np.float32(x))


# --- The page is right -----------------------------------------------------------------------------

# Random123, tests/kat_vectors, "philox4x64 10": counter, key, result.
KNOWN_ANSWERS = """
0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000 0000000000000000
16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b
ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff
87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0
243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89 452821e638d01377 be5466cf34e90c6c
a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6
"""


def test_philox_as_the_page_describes_it_gives_the_published_answers() -> None:
    values = [int(word, 16) for word in KNOWN_ANSWERS.split()]
    cases = [values[i : i + 10] for i in range(0, len(values), 10)]
    assert len(cases) == 3
    for case in cases:
        assert philox_block(tuple(case[:4]), (case[4], case[5])) == tuple(case[6:])


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_decimal_and_hexadecimal_coefficients_of_the_page_agree(name: str) -> None:
    rows = COEFFICIENTS[name]
    assert [row[0] for row in rows] == list("76543210")
    for _, a, a_hex, b, b_hex in rows:
        assert (float(a), float(b)) == (float.fromhex(a_hex), float.fromhex(b_hex))


def test_constants_in_the_text_of_the_page() -> None:
    text = " ".join(PAGE.read_text("utf-8").split())
    for value in (0.425, 0.180625, 1.6):
        assert f"{value} is {value.hex()}" in text
    hi, lo = (Decimal(LOG_CONSTANTS[name]) for name in ("LN2_HI", "LN2_LO"))
    with localcontext(prec=50):
        assert abs(hi + lo - Decimal(2).ln()) < Decimal(2) ** -86
    assert (LOG_CONSTANTS["LN2_HI"] * 2**32).is_integer()
    assert LOG_CONSTANTS["SQRT_HALF"] == math.sqrt(0.5)


def test_purposes_are_those_of_the_page() -> None:
    assert {purpose.name: purpose.value for purpose in Purpose} == PURPOSES


# --- The code against the page ---------------------------------------------------------------------


def test_stream_vectors() -> None:
    assert len({tuple(row[:4]) for row in STREAMS}) == 3
    assert str(LARGEST_SEED) in {row[0] for row in STREAMS}
    for seed, purpose, scale, step, k, word, uniform_hex, normal_hex in STREAMS:
        stream = int(seed), Purpose[purpose], int(scale), int(step)
        assert page_words(*stream, int(k) + 1)[-1] == int(word, 16)
        assert page_uniform(int(word, 16)) == float.fromhex(uniform_hex)
        assert page_normal(int(word, 16)) == float.fromhex(normal_hex)
        assert float(uniform(*stream, (5,))[int(k)]) == float.fromhex(uniform_hex)
        assert float(normal(*stream, (5,))[int(k)]) == float.fromhex(normal_hex)


def test_single_word_vectors_reach_every_branch() -> None:
    branches = set()
    for word_hex, uniform_hex, normal_hex, _ in SINGLE_WORDS:
        word = int(word_hex, 16)
        u = ((word >> 12) + 0.5) * 2.0**-52
        p = min(u, 1 - u)
        branches.add((u < 0.5, "central" if p > 0.075 else "near" if page_log(p) >= -25 else "far"))
        assert page_uniform(word) == float.fromhex(uniform_hex)
        assert page_normal(word) == float.fromhex(normal_hex)
        assert float(np.float32(inverse_normal(np.array([u]))[0])) == float.fromhex(normal_hex)
    assert branches >= {(True, "far"), (False, "far"), (True, "near"), (True, "central"), (False, "central")}


@pytest.mark.parametrize("seed", [0, 7, LARGEST_SEED])
@pytest.mark.parametrize(("purpose", "scale", "step"), [(Purpose.TOKENS, 0, 0), (Purpose.RESIDUAL, 13, 8)])
def test_code_equals_the_scalar_implementation(seed: int, purpose: Purpose, scale: int, step: int) -> None:
    words = page_words(seed, purpose, scale, step, 2500)
    uniforms = uniform(seed, purpose, scale, step, (50, 50))
    normals = normal(seed, purpose, scale, step, (50, 50))
    assert uniforms.shape == normals.shape == (50, 50)
    assert uniforms.dtype == normals.dtype == np.float32
    assert uniforms.ravel().tolist() == [page_uniform(word) for word in words]
    assert normals.ravel().tolist() == [page_normal(word) for word in words]


def test_tails_equal_the_scalar_implementation() -> None:
    words = [int(2**64 * 10.0**-k) for k in np.linspace(1.2, 17, 400).tolist()]
    words += [MASK - word for word in words]
    u = np.array([((word >> 12) + 0.5) * 2.0**-52 for word in words])
    assert inverse_normal(u).astype(np.float32).tolist() == [page_normal(word) for word in words]


def test_long_arrays_are_the_same_stream() -> None:
    """Chunks are an implementation detail: words after the first chunks come from their own blocks too."""
    n = 2 * CHUNK + 5
    for make, convert in ((uniform, page_uniform), (normal, page_normal)):
        values = make(11, Purpose.RESIDUAL, 2, 3, (n,))
        assert values[: CHUNK + 3].tolist() == make(11, Purpose.RESIDUAL, 2, 3, (CHUNK + 3,)).tolist()
        for k in (CHUNK - 1, CHUNK, 2 * CHUNK, n - 1):
            word = philox_block((k // 4, 3, 2, Purpose.RESIDUAL), (11, 0))[k % 4]
            assert float(values[k]) == convert(word)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (2, 3, 4)])
def test_shapes(shape: tuple[int, ...]) -> None:
    flat = page_words(3, Purpose.TOKENS, 1, 0, math.prod(shape))
    values = uniform(3, Purpose.TOKENS, 1, 0, shape)
    assert values.shape == shape
    assert values.ravel().tolist() == [page_uniform(word) for word in flat]


# --- The numbers have their distributions ----------------------------------------------------------


def test_inverse_normal_against_the_standard_library() -> None:
    rng = np.random.default_rng(0)
    tail = 10.0 ** -rng.uniform(1, 15.9, 3000)
    u = np.concatenate([rng.uniform(0, 1, 10000), tail, 1 - tail, [2.0**-53, 1 - 2.0**-53, 0.075, 0.925]])
    expected = np.array([statistics.NormalDist().inv_cdf(value) for value in u.tolist()])
    np.testing.assert_allclose(inverse_normal(u), expected, rtol=2e-15, atol=0)


def test_logarithm_is_within_one_ulp() -> None:
    rng = np.random.default_rng(1)
    p = np.concatenate([10.0 ** -rng.uniform(1.13, 15.9, 2000), 2.0 ** -np.arange(4.0, 54.0), [0.075]])
    with localcontext(prec=40):
        for value, result in zip(p.tolist(), log(p).tolist(), strict=True):
            assert abs(Decimal(result) - Decimal(value).ln()) < Decimal(0.75 * math.ulp(result))
            assert result == page_log(value)


def test_uniforms_are_uniform() -> None:
    n = 1 << 20
    u = np.sort(uniform(5, Purpose.TOKENS, 6, 0, (n,)).astype(np.float64))
    assert 0 < u[0] < u[-1] < 1
    assert abs(u.mean() - 0.5) < 4 * math.sqrt(1 / 12 / n)
    assert np.abs(u - (np.arange(n) + 0.5) / n).max() < 1.95 / math.sqrt(n)  # Kolmogorov-Smirnov, 0.1 %


def test_normals_are_normal() -> None:
    n = 1 << 20
    x = np.sort(normal(5, Purpose.RESIDUAL, 9, 0, (n,)).astype(np.float64))
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs((x**power).mean() - moment) < 4 * math.sqrt(variance / n)
    every = slice(None, None, 64)
    cdf = np.array([statistics.NormalDist().cdf(value) for value in x[every].tolist()])
    assert np.abs(cdf - ((np.arange(n) + 0.5) / n)[every]).max() < 1.95 / math.sqrt(n)


@pytest.mark.long
def test_streams_are_independent() -> None:
    """Streams that differ in one coordinate share no number and are uncorrelated; coordinates do not alias."""
    n = 20_000
    coordinates = [
        (seed, purpose, scale, step)
        for seed in (0, 1, 2, 1 << 32, LARGEST_SEED)
        for purpose in Purpose
        for scale in (0, 1, 2)
        for step in (0, 1, 2)
    ]
    streams = np.stack([normal(*where, (n,)) for where in coordinates]).astype(np.float64)
    assert len({stream.tobytes() for stream in streams}) == len(coordinates)
    correlation = np.corrcoef(streams) - np.eye(len(coordinates))
    assert np.abs(correlation).max() < 5.5 / math.sqrt(n)
    shifted = streams[:, :-4] @ streams[:, 4:].T / n  # against the next block
    assert np.abs(shifted).max() < 5.5 / math.sqrt(n)


# --- Refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [np.int64(7), np.uint64(7), np.int32(7), np.uint8(7), 7])
def test_integers_of_numpy_are_seeds(seed: int) -> None:
    assert check_seed(seed) == 7
    assert type(check_seed(seed)) is int
    assert np.array_equal(uniform(seed, Purpose.TOKENS, 0, 0, (4,)), uniform(7, Purpose.TOKENS, 0, 0, (4,)))
    assert check_seed(np.uint64(LARGEST_SEED)) == LARGEST_SEED


@pytest.mark.parametrize(
    ("seed", "found"),
    [
        (-1, "found -1"),
        (2**64, "found 18446744073709551616"),
        (True, "found True (bool)"),
        (np.bool_(False), "(bool"),
        (7.0, "found 7.0 (float)"),
        ("7", "found '7' (str)"),
        (None, "found None (NoneType)"),
    ],
)
@pytest.mark.parametrize("make", [uniform, normal])
def test_bad_seed(make: Callable[..., object], seed: object, found: str) -> None:
    with pytest.raises(InputError) as error:
        make(seed, Purpose.TOKENS, 0, 0, (4,))
    assert isinstance(error.value, HartEdgeError)
    message = str(error.value)
    assert message.startswith("seed: expected an integer from 0 to 2**64 - 1, found ")
    assert found in message
    assert message.endswith("pass an integer such as 7, or leave the seed out")


@pytest.mark.parametrize(("scale", "step", "name"), [(-1, 0, "scale"), (0, -1, "step"), (0, 1.5, "step")])
def test_bad_scale_and_step(scale: int, step: int, name: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: expected an integer"):
        uniform(0, Purpose.TOKENS, scale, step, (4,))
