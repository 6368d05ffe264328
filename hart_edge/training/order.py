"""Which examples a step sees, and every random number of training, as functions of (seed, step).

So there is no generator to store: a resumed run draws what the uninterrupted one would have drawn, and several
processes draw the numbers of the whole batch and keep their own part of it.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

GOLDEN_SECTION = (5**0.5 - 1) / 2


class StepPurpose(enum.IntEnum):
    """What random numbers are for; part of the key, so that no two uses share numbers. Never renumber."""

    ORDER = 0
    ALTERNATING = 1
    MIRROR = 2
    CODEBOOK = 3
    CAPTION = 4
    CONDITION = 6
    KEPT = 7
    DIFFUSION = 8
    ROUNDING = 9
    CORRECTION = 10


def random_of(seed: int, step: int, purpose: StepPurpose) -> np.random.Generator:
    return np.random.default_rng((seed, purpose, step))


def rows_of(
    examples: int, batch: int, step: int, seed: int, shares: NDArray[np.float64] | None = None
) -> NDArray[np.int64]:
    """The examples of a step: (batch,). Every epoch is a new permutation; a batch may reach into the next epoch.

    shares: (examples,), which add up to 1, how often each is drawn; None: alike (shares_of).
    """
    first = step * batch
    rows: list[int] = []
    while len(rows) < batch:
        epoch, at = divmod(first + len(rows), examples)
        permutation = random_of(seed, epoch, StepPurpose.ORDER).permutation(examples)
        if shares is not None:
            permutation = resampled(shares, epoch, seed)[permutation]
        rows += permutation[at : at + batch - len(rows)].tolist()
    return np.array(rows, dtype=np.int64)


def resampled(shares: NDArray[np.float64], epoch: int, seed: int) -> NDArray[np.int64]:
    """As many examples as there are shares, each as often as its share asks for, rounded up or down: (N,).

    Systematic resampling: evenly spaced points on a line along which every example has a stretch as long as its share.
    From epoch to epoch the points move on by the golden section, so that an example with a share of a third of an
    epoch comes back about every third epoch, and none is left out for long. Neighbours share their rounding.
    """
    count = len(shares)
    ends = np.cumsum(shares) * count
    offset = (random_of(seed, 0, StepPurpose.ROUNDING).random() + epoch * GOLDEN_SECTION) % 1
    return np.searchsorted(ends, np.arange(count) + offset, side="right").clip(max=count - 1)


def shares_of(groups: Sequence[str], weights: Sequence[float], balance: float) -> NDArray[np.float64] | None:
    """How often each of N examples is drawn: (N,), which add up to 1; None where all are drawn alike.

    balance: 0 gives a group of n examples a part of n, 1 gives every group the same; between them n^(1 - balance).
    Within a group an example has a part in proportion to its weight. An example whose group is "" is one of its own.
    No groups, no weights (()): none has any.
    """
    if not groups:
        return None
    names = [group or index for index, group in enumerate(groups)]  # no string is equal to a number
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    group = np.array([numbers[name] for name in names])
    sizes, weight = np.bincount(group), np.array(weights)
    parts = weight * (sizes ** (1 - balance) / np.bincount(group, weight))[group]
    return None if np.allclose(parts, parts[0], rtol=1e-9, atol=0) else parts / parts.sum()


def share_of(batch: int, process: int, processes: int) -> slice:
    """The part of a batch that one of several processes works on. batch is a multiple of processes."""
    each = batch // processes
    return slice(process * each, (process + 1) * each)
