"""What fills the buffers that no step writes: the caller's inputs, settings, constants and noise of one image.

In: inputs, a seed and a Sampling. Out: a Fill for loop.py. Everything that runs a
plan uses it, the build included, so that a seed means the same noise everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from hart_edge.bundle.plan import Buffer, BufferKind, Distribution
from hart_edge.bundle.settings import Sampling
from hart_edge.runtime.loop import Array, Fill
from hart_edge.runtime.random import Purpose, normal, uniform
from hart_edge.runtime.settings import setting_value


def fill_with(inputs: Mapping[str, Array], seed: int, sampling: Sampling, constant: Callable[[str], Array]) -> Fill:
    """A Fill for one image. inputs: the buffers of kind input; sampling: its settings; constant: finds one by name."""

    def fill(name: str, buffer: Buffer) -> Array:
        if buffer.kind is BufferKind.INPUT:
            return inputs[name]
        if buffer.kind is BufferKind.CONSTANT:
            assert buffer.constant is not None  # the manifest's reader has checked it
            return constant(buffer.constant)
        if buffer.kind is BufferKind.NOISE:
            return noise(buffer, seed)
        return setting_value(sampling, buffer)

    return fill


def noise(buffer: Buffer, seed: int) -> Array:
    """A noise buffer of one image, as docs/randomness.md has it: (1, ...) float32."""
    assert buffer.scale is not None and buffer.purpose is not None  # the manifest's reader has checked both
    shape = tuple(int(size) for size in buffer.shape[1:])
    purpose = Purpose(buffer.purpose)
    if buffer.distribution is Distribution.UNIFORM:
        return uniform(seed, purpose, buffer.scale, 0, shape)[None]
    first = buffer.draw or 0
    draws = [normal(seed, purpose, buffer.scale, first + step, shape[1:]) for step in range(shape[0])]
    return np.stack(draws)[None]
