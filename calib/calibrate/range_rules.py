"""From the values of a tensor to the range that INT8 represents: four rules behind one interface.

In: a Summary. Out: (low, high). docs/int8.md has the measurements behind the default rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from hart_edge.calib.calibrate.ranges import with_zero
from hart_edge.calib.calibrate.statistics import Summary
from hart_edge.errors import BuildError

Range = tuple[float, float]

LEVELS = 256
SHARES = np.linspace(1.0, 0.2, 65)  # of the largest magnitude: the ends that MSE and entropy try
OUTSIDE = 1e-4  # share of the values that the percentile clips at each end


class RangeRule(StrEnum):
    """How a range is made of the values that calibration saw."""

    MIN_MAX = "min-max"  # the extremes: nothing is clipped
    PERCENTILE = "percentile"  # all but a fixed share of the values
    ENTROPY = "entropy"  # the quantised distribution nearest to the true one, by Kullback-Leibler divergence
    MSE = "mse"  # least mean squared error of the values


# By component; the others take MIN_MAX.
DEFAULTS: Mapping[str, RangeRule] = {"text_model": RangeRule.MSE, "context": RangeRule.MSE}


def default_rule(component: str) -> RangeRule:
    """The rule of a component where the user names none."""
    return DEFAULTS.get(component, RangeRule.MIN_MAX)


def find_range(rule: RangeRule, summary: Summary, tensor: str) -> Range:
    """The range of a tensor. Raises BuildError if calibration saw no value of it, or one value only.

    tensor: its name, for the message.
    """
    if not summary.histogram.counts.any():
        raise BuildError(f"{tensor}: calibration saw no value of it; please report it")
    if summary.low == summary.high:
        raise BuildError(
            f"{tensor}: calibration saw nothing but {summary.low:g}, so no range can be told from it; calibrate on "
            "other prompts (--prompts), or keep the weight that it is multiplied with out of INT8 (--exclude)"
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
        """Divergence of the true shares from the quantised ones: each level's, spread evenly over its occupied bins."""
        levels = np.rint((fake_quantize(centres, low, high) - low) * ((LEVELS - 1) / (high - low))).astype(np.int64)
        inside = (centres >= low) & (centres <= high)
        occupied = shares > 0
        whole = np.bincount(levels[inside], shares[inside], LEVELS)
        bins = np.bincount(levels[inside & occupied], minlength=LEVELS)
        spread = np.where(inside & occupied, (whole / np.maximum(bins, 1))[levels], 0)
        floor = 1e-9  # for bins beyond the range, which no level represents
        spread = np.maximum(spread / max(spread.sum(), floor), floor)
        return float((shares[occupied] * np.log(shares[occupied] / spread[occupied])).sum())

    return _least(summary, cost)


def fake_quantize(values: NDArray[np.float64], low: float, high: float) -> NDArray[np.float64]:
    """The values after quantisation to UINT8 over [low, high] and back."""
    step = (high - low) / (LEVELS - 1)
    return np.rint((values.clip(low, high) - low) / step) * step + low


def _least(summary: Summary, cost: Callable[[float, float], float]) -> Range:
    """Of the ranges that end at one of SHARES of the largest magnitude, the one that costs least."""
    low, high = with_zero(summary.low, summary.high)
    ends = SHARES * max(-low, high)
    return min(((max(low, -end), min(high, end)) for end in ends), key=lambda pair: cost(*pair))


RULES: Mapping[RangeRule, Callable[[Summary], Range]] = {
    RangeRule.MIN_MAX: _min_max,
    RangeRule.PERCENTILE: _percentile,
    RangeRule.ENTROPY: _entropy,
    RangeRule.MSE: _mse,
}
