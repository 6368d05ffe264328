"""The noise of docs/randomness.md in C: the test vectors of the page, and Python's arrays, bit by bit."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hart_edge.runtime.random import Purpose, normal, uniform
from tests.runtime.test_random import SINGLE_WORDS, STREAMS

Make = Callable[..., NDArray[np.float32]]


def native_array(doors: Any, kind: str, stream: tuple[int, ...], n: int) -> NDArray[np.float32]:
    out = np.full(n + 1, np.nan, np.float32)
    arguments = [ctypes.c_uint64(word) for word in stream]
    getattr(doors, f"door_{kind}")(*arguments, out.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(n))
    assert np.isnan(out[n])  # nothing is written past the end
    return out[:n]


def test_stream_vectors(doors: Any) -> None:
    for seed, purpose, scale, step, k, _, uniform_hex, normal_hex in STREAMS:
        stream = int(seed), int(Purpose[purpose]), int(scale), int(step)
        assert native_array(doors, "uniform", stream, 5)[int(k)] == float.fromhex(uniform_hex)
        assert native_array(doors, "normal", stream, 5)[int(k)] == float.fromhex(normal_hex)


def test_single_word_vectors(doors: Any) -> None:
    """They reach every branch: centre, near and far tail, both signs."""
    doors.door_uniform_of.restype = doors.door_normal_of.restype = ctypes.c_float
    assert len(SINGLE_WORDS) >= 10
    for word, uniform_hex, normal_hex, _ in SINGLE_WORDS:
        assert doors.door_uniform_of(ctypes.c_uint64(int(word, 16))) == float.fromhex(uniform_hex)
        assert doors.door_normal_of(ctypes.c_uint64(int(word, 16))) == float.fromhex(normal_hex)


@pytest.mark.parametrize(("kind", "make"), [("uniform", uniform), ("normal", normal)])
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 8195])
def test_lengths(doors: Any, kind: str, make: Make, n: int) -> None:
    stream = (7, 1, 9, 8)
    assert native_array(doors, kind, stream, n).tobytes() == make(*stream, (n,)).tobytes()


def test_a_million_normals_and_uniforms(doors: Any) -> None:
    for seed in (0, 2**64 - 1):
        for kind, make, stream in (("uniform", uniform, (seed, 0, 6, 0)), ("normal", normal, (seed, 1, 6, 3))):
            assert native_array(doors, kind, stream, 2**18).tobytes() == make(*stream, (2**18,)).tobytes()


def test_tails(doors: Any) -> None:
    """Words within 1e-17 of both ends of the range, far rarer than in any array."""
    from hart_edge.runtime.random import inverse_normal

    doors.door_normal_of.restype = ctypes.c_float
    words = [int(2**64 * 10.0**-k) for k in np.linspace(0.1, 19, 2000).tolist()]
    words += [2**64 - 1 - word for word in words]
    u = np.array([((word >> 12) + 0.5) * 2.0**-52 for word in words])
    found = np.array([doors.door_normal_of(ctypes.c_uint64(word)) for word in words], np.float32)
    assert found.tobytes() == inverse_normal(u).astype(np.float32).tobytes()


def test_settings_in_every_dtype(doors: Any) -> None:
    """Converted as numpy does: to the nearest FP16 number, ties to even."""
    values = [0.0, 1.0, 4.5, 100.0, 1e-6, 6e-8, 2.98e-8, 3.0e-8, 1 / 3, 0.1, 2**-14, 2**-15 * 1.5, 99.97, 1 + 2**-11]
    values += np.random.default_rng(3).uniform(0, 100, 300).tolist()
    for place, dtype in enumerate(("float32", "float16", "int64", "int32", "uint8", "int8", "bool")):
        for value in values:
            out = np.zeros(1, dtype)
            message = ctypes.create_string_buffer(4096)
            given = out.ctypes.data_as(ctypes.c_void_p)
            assert doors.door_setting(place, ctypes.c_double(value), given, message) == 0, message.value
            assert out.tobytes() == np.array([value], dtype).tobytes(), (dtype, value)


def test_a_setting_that_does_not_fit_into_a_dtype(doors: Any) -> None:
    out, message = np.zeros(1, np.uint8), ctypes.create_string_buffer(4096)
    given = out.ctypes.data_as(ctypes.c_void_p)
    assert doors.door_setting(4, ctypes.c_double(256), given, message) == 3
    assert message.value.startswith(b"manifest.json: expected cfg_scale in a dtype that holds it, found 256 in uint8;")
