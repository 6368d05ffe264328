"""A text model's output, for bundles that hold none, checked against what the bundle takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hart_edge.errors import InputError
from hart_edge.runtime.loop import Array


@dataclass(frozen=True, eq=False)
class Context:
    """A text model's output, for bundles that hold none: tokens (T, D) float32, mask (T,) bool, True for words.

    image = pipe.generate(hart_edge.Context(tokens, mask))
    """

    tokens: NDArray[np.float32]
    mask: NDArray[np.bool_]


def check_context(context: Context, tokens: int, dim: int) -> dict[str, Array]:
    """The input buffers of a Context: (1, T, D) float32 and (1, T) bool."""
    try:
        values, mask = np.asarray(context.tokens), np.asarray(context.mask)
    except ValueError as error:  # rows of different lengths
        raise InputError(f"Context: expected two arrays, found something else ({error})") from error
    for name, array, shape, kind in (("tokens", values, (tokens, dim), "f"), ("mask", mask, (tokens,), "b")):
        expected = "float32" if kind == "f" else "bool"
        if array.shape != shape or array.dtype.kind != kind:
            raise InputError(f"Context.{name}: expected {expected} {shape}, found {array.dtype} {array.shape}")
    with np.errstate(over="ignore"):  # float64 that float32 cannot hold becomes infinite, and is refused
        values = np.ascontiguousarray(values, np.float32)
    if not np.isfinite(values).all() or not mask.any():
        raise InputError("Context: expected finite tokens and at least one True in mask; check your text model")
    return {
        "context": values[None],
        "context_mask": np.ascontiguousarray(mask)[None],
    }
