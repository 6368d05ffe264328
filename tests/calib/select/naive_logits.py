"""The figures of a LogitError, computed token by token without torch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def naive(expected: Array, found: Array) -> tuple[float, float, float, float]:
    """Mean cosine, largest error, top-1 and mean KL of logits (tokens, V)."""
    cosine, largest, same, kl = [], 0.0, 0, []
    for own, other in zip(expected, found, strict=True):
        cosine.append(own @ other / math.sqrt((own @ own) * (other @ other)))
        largest = max(largest, *(abs(a - b) for a, b in zip(own, other, strict=True)))
        same += int(np.argmax(own) == np.argmax(other))
        p, q = (np.exp(each) / np.exp(each).sum() for each in (own, other))
        kl.append(sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)))
    return float(np.mean(cosine)), largest, same / len(expected), float(np.mean(kl))
