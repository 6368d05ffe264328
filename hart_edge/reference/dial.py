"""What a speed leaves out: the unconditional branch of the last scales, and every other denoising step.

In: a speed and a model's sizes. Out: a Dial, which the reference's loop and the plans of a bundle follow. Which rules
these are was chosen by measurement (docs/dial.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from hart_edge.bundle.settings import Speed

UNGUIDED = {Speed.EXACT: 0, Speed.BALANCED: 2, Speed.FAST: 3}  # of the last scales


@dataclass(frozen=True)
class Dial:
    """guided: how many of the first scales have an unconditional branch; where the last is not one of them, the
    residual has none either. steps: of the residual diffusion."""

    guided: int
    steps: int


def dial_of(speed: Speed, scales: int, steps: int) -> Dial:
    """steps: of the exact residual diffusion. An odd number is not halved: a bundle's graph runs half of them."""
    halved = speed is not Speed.EXACT and steps % 2 == 0
    return Dial(max(1, scales - UNGUIDED[speed]), steps // 2 if halved else steps)


def steps_of_run(steps: int) -> int:
    """How many denoising steps the residual graph does at a time, so that it serves every speed."""
    return steps // 2 if steps % 2 == 0 else steps
