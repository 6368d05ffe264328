"""What a speed leaves out: the unconditional branch of the last scales, tokens that change least, denoising steps.

In: a speed and a model's sizes. Out: a Dial, which the reference's loop and the plans of a bundle follow. Which rules
these are was chosen by measurement (docs/dial.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hart_edge.bundle.settings import Speed

UNGUIDED = {Speed.EXACT: 0, Speed.BALANCED: 2, Speed.FAST: 3}  # of the last scales
THINNED = {Speed.EXACT: 0, Speed.BALANCED: 0, Speed.FAST: 2}  # of the last scales, fewer than are unguided
KEPT_OF_FOUR = 3  # tokens, at a scale that is thinned
THINNED_FROM = 2  # the first scale that two others go before, whose difference says which tokens are kept


@dataclass(frozen=True)
class Dial:
    """guided: how many of the first scales have an unconditional branch; where the last is not one of them, the
    residual has none either. kept: per scale, how many of its tokens are computed. steps: of the residual diffusion."""

    guided: int
    kept: tuple[int, ...]
    steps: int


def dial_of(speed: Speed, patch_nums: Sequence[int], steps: int) -> Dial:
    """steps: of the exact residual diffusion. An odd number is not halved: a bundle's graph runs half of them."""
    scales = len(patch_nums)
    halved = speed is not Speed.EXACT and steps % 2 == 0
    thinned = max(THINNED_FROM, scales - THINNED[speed])
    kept = (-(-side * side * KEPT_OF_FOUR // 4) if s >= thinned else side * side for s, side in enumerate(patch_nums))
    return Dial(max(1, scales - UNGUIDED[speed]), tuple(kept), steps // 2 if halved else steps)


def thins(patch_nums: Sequence[int], speeds: Sequence[Speed]) -> bool:
    """Whether one of the speeds leaves tokens out."""
    return any(dial_of(speed, patch_nums, 1).kept[-1] < patch_nums[-1] ** 2 for speed in speeds)


def steps_of_run(steps: int) -> int:
    """How many denoising steps the residual graph does at a time, so that it serves every speed."""
    return steps // 2 if steps % 2 == 0 else steps
