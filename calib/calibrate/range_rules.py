"""From what a tensor did to the range that INT8 holds of it: four rules behind one interface.

In: a Summary. Out: (low, high). docs/int8.md has the measurement behind DEFAULT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hart_edge.calib.calibrate.statistics import Summary
from hart_edge.errors import BuildError

Range = tuple[float, float]

LEVELS = 256
SHARES = np.linspace(1.0, 0.2, 65)  # of the largest magnitude: where MSE and entropy look at clipping
OUTSIDE = 1e-4  # share of values that the percentile leaves beyond each end


class RangeRule(StrEnum):
    """How a range is made of what was seen."""

    MIN_MAX = "min-max"  # the extremes: nothing is clipped
    PERCENTILE = "percentile"  # all but a fixed share of the values
    ENTROPY = "entropy"  # the quantised distribution nearest to the true one, by Kullback-Leibler divergence
    MSE = "mse"  # least mean squared error of the values


# Of each component; what is not named takes MIN_MAX.
DEFAULT: Mapping[str, RangeRule] = {"text_model": RangeRule.MSE, "context": RangeRule.MSE}


def find_range(rule: RangeRule, summary: Summary, tensor: str) -> Range:
    """The range of a tensor. Raises BuildError where calibration saw nothing, or nothing but one value.

    tensor: its name, for the message.
    """
    if not summary.histogram.counts.any():
        raise BuildError(f"{tensor}: calibration saw no value of it; please report it")
    if summary.low == summary.high:
        raise BuildError(
            f"{tensor}: calibration saw nothing but {summary.low:g}, so no range can be told from it; calibrate on "
            "other prompts (--prompts), or keep what reads it out of INT8 (--keep)"
        )
    low, high = RULES[rule](summary)
    return max(low, summary.low), min(high, summary.high)


def _min_max(summary: Summary) -> Range:
    return summary.low, summary.high


def _percentile(summary: Summary) -> Range:
    counts, centres = summary.histogram.counts, summary.histogram.centres()
    below = np.cumsum(counts) / counts.sum()
    inside = np.flatnonzero((below > OUTSIDE) & (below - counts / counts.sum() < 1 - OUTSIDE))
    return float(centres[inside[0]]), float(centres[inside[-1]])


def _mse(summary: Summary) -> Range:
    counts, centres = summary.histogram.counts, summary.histogram.centres()

    def cost(low: float, high: float) -> float:
        return float(counts @ np.square(centres - fake_quantize(centres, low, high)))

    return _least(summary, cost)


def _entropy(summary: Summary) -> Range:
    counts, centres = summary.histogram.counts, summary.histogram.centres()
    shares = counts / counts.sum()

    def cost(low: float, high: float) -> float:
        """Divergence of the true shares from those that levels hold, spread evenly over a level's occupied bins."""
        levels = np.rint((fake_quantize(centres, low, high) - low) * ((LEVELS - 1) / (high - low))).astype(np.int64)
        inside = (centres >= low) & (centres <= high)
        occupied = shares > 0
        whole = np.bincount(levels[inside], shares[inside], LEVELS)
        bins = np.bincount(levels[inside & occupied], minlength=LEVELS)
        spread = np.where(inside & occupied, (whole / np.maximum(bins, 1))[levels], 0)
        floor = 1e-9  # what lies beyond the range is held by no level of its own
        spread = np.maximum(spread / max(spread.sum(), floor), floor)
        return float((shares[occupied] * np.log(shares[occupied] / spread[occupied])).sum())

    return _least(summary, cost)


def fake_quantize(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """Values as UINT8 over [low, high] holds them."""
    step = (high - low) / (LEVELS - 1)
    return np.rint((values.clip(low, high) - low) / step) * step + low


def _least(summary: Summary, cost: Callable[[float, float], float]) -> Range:
    """The range that costs least of those clipped at a share of the largest magnitude."""
    low, high = min(summary.low, 0.0), max(summary.high, 0.0)  # zero is always held
    ends = SHARES * max(-low, high)
    return min(((max(low, -end), min(high, end)) for end in ends), key=lambda pair: cost(*pair))


RULES: Mapping[RangeRule, Callable[[Summary], Range]] = {
    RangeRule.MIN_MAX: _min_max,
    RangeRule.PERCENTILE: _percentile,
    RangeRule.ENTROPY: _entropy,
    RangeRule.MSE: _mse,
}
