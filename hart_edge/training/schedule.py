"""The learning rate of a step: a linear warm-up, then half a cosine. Nothing to store: the step number is enough."""

from __future__ import annotations

import math

from hart_edge.training.recipe import Optimisation


def learning_rate(o: Optimisation, step: int) -> float:
    """Of step 0 to o.steps - 1; the last step of the warm-up has the full rate."""
    if step < o.warmup:
        return o.learning_rate * (step + 1) / o.warmup
    passed = (step - o.warmup) / (o.steps - o.warmup)
    return o.learning_rate * (o.final + (1 - o.final) * (1 + math.cos(math.pi * passed)) / 2)
