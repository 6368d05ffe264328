"""Which examples a step sees, and every random number of training, as functions of (seed, step).

So there is no generator to store: a resumed run draws what the uninterrupted one would have drawn, and several
processes draw the numbers of the whole batch and keep their own part of it.
"""

from __future__ import annotations

import enum

import numpy as np
from numpy.typing import NDArray


class Purpose(enum.IntEnum):
    """What random numbers are for; part of the key, so that no two uses share numbers. Never renumber."""

    ORDER = 0
    ALTERNATING = 1
    MIRROR = 2
    CODEBOOK = 3
    CAPTION = 4
    CONDITION = 6
    KEPT = 7
    DIFFUSION = 8


def random_of(seed: int, step: int, purpose: Purpose) -> np.random.Generator:
    return np.random.default_rng((seed, purpose, step))


def rows_of(examples: int, batch: int, step: int, seed: int) -> NDArray[np.int64]:
    """The examples of a step: (batch,). Every epoch is a new permutation; a batch may reach into the next epoch."""
    first = step * batch
    rows = []
    while len(rows) < batch:
        epoch, at = divmod(first + len(rows), examples)
        permutation = random_of(seed, epoch, Purpose.ORDER).permutation(examples)
        rows += permutation[at : at + batch - len(rows)].tolist()
    return np.array(rows, dtype=np.int64)


def share_of(batch: int, process: int, processes: int) -> slice:
    """The part of a batch that one of several processes works on. batch is a multiple of processes."""
    each = batch // processes
    return slice(process * each, (process + 1) * each)
