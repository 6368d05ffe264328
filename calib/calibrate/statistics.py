"""What calibration remembers of a tensor: extremes, means, a histogram and a few rows, for each call of a prompt.

In: the range outputs of each call (graph_outputs.py). Out: a Summary, of which range_rules.py makes a range. Memory
depends on the channels and on the calls of one prompt, never on the number of prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BINS = 4096  # over [-reach, reach]: 16 for each step of UINT8 where values fill all of it
ROWS = 32  # rows that each call returns, and that are kept of the same call of all prompts

Floats = NDArray[np.float32]


class Histogram:
    """Shares of values over [-reach, reach]. The reach is a power of two and doubles until it holds all values."""

    def __init__(self) -> None:
        self.reach = 2.0**-20
        self.counts = np.zeros(BINS)

    def add(self, values: Floats) -> None:
        """Add values whose weights sum to 1, however many they are."""
        self.widen(float(np.abs(values).max(initial=0)))
        places = ((values.ravel() / self.reach + 1) * (BINS / 2)).astype(np.int64).clip(0, BINS - 1)
        self.counts += np.bincount(places, minlength=BINS) / values.size

    def widen(self, magnitude: float) -> None:
        """Double the reach until it holds a magnitude."""
        while self.reach < magnitude:
            middle = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(middle, BINS // 4)
            self.reach *= 2

    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin, (BINS,)."""
        return (np.arange(BINS, dtype=np.float64) + 0.5) * (2 * self.reach / BINS) - self.reach


@dataclass(frozen=True)
class Summary:
    """What a range is made of: the extremes of a tensor, and the histogram of its values."""

    low: float
    high: float
    histogram: Histogram


@dataclass
class Call:
    """What is remembered of one call of the loop, over all prompts."""

    prompts: int = 0
    least: float = 0.0  # the smallest value, summed over prompts
    most: float = 0.0  # the largest value, summed over prompts
    low: Floats = field(default_factory=lambda: np.zeros(0, np.float32))  # (C,) over all prompts
    high: Floats = field(default_factory=lambda: np.zeros(0, np.float32))  # (C,)
    mean: Floats = field(default_factory=lambda: np.zeros(0, np.float32))  # (C,) summed over prompts
    rows: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))  # at most (ROWS, C)
    lots: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # drawn per row; the smallest keep theirs
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, low: Floats, high: Floats, mean: Floats, rows: Floats, lots: NDArray[np.float64]) -> None:
        self.histogram.add(rows)
        self.least, self.most = self.least + float(low.min()), self.most + float(high.max())
        if self.prompts:
            low, high, mean = np.minimum(self.low, low), np.maximum(self.high, high), self.mean + mean
            rows, lots = np.concatenate([self.rows, rows]), np.concatenate([self.lots, lots])
        kept = np.sort(np.argsort(lots)[:ROWS])  # the rows with the smallest numbers, in their order
        self.low, self.high, self.mean, self.rows, self.lots = low, high, mean, rows[kept], lots[kept]
        self.prompts += 1


class TensorStatistics:
    """All calls of a tensor. Every call counts the same: that of the first scale as much as that of the last."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def call(self, index: int) -> Call:
        """What is remembered of a call of a prompt, by its number; calls come in order."""
        if index == len(self.calls):
            self.calls.append(Call())
        return self.calls[index]

    def channels(self) -> tuple[Floats, Floats]:
        """Lowest and highest value per channel, (C,) each, over all prompts and calls."""
        return np.min([call.low for call in self.calls], axis=0), np.max([call.high for call in self.calls], axis=0)

    def extremes(self) -> tuple[float, float]:
        """Extremes of the widest calls, averaged over prompts, so that no single prompt stretches the range."""
        return min(call.least / call.prompts for call in self.calls), max(c.most / c.prompts for c in self.calls)

    def means(self) -> Floats:
        """Mean per channel, (C,)."""
        means: Floats = np.mean([call.mean / call.prompts for call in self.calls], axis=0, dtype=np.float32)
        return means

    def rows(self, most: int | None = None) -> Floats:
        """Rows of all calls, (n, C), the same number of each; about `most` in all, None for every row."""
        each = ROWS if most is None else max(1, most // len(self.calls))
        return np.concatenate([call.rows[:each] for call in self.calls])

    def summary(self) -> Summary:
        """The summary of the tensor as it is."""
        whole = Histogram()
        for call in self.calls:
            whole.widen(call.histogram.reach)
        for call in self.calls:
            own = Histogram()
            own.counts, own.reach = call.histogram.counts / call.prompts, call.histogram.reach
            own.widen(whole.reach)
            whole.counts += own.counts / len(self.calls)
        return Summary(*self.extremes(), whole)

    def smoothed(self, factors: Floats) -> Summary:
        """The summary of the tensor with its channels divided by factors (C,); its histogram is that of the rows."""
        low, high = self.channels()
        whole = Histogram()
        whole.add(self.rows() / factors)
        return Summary(float((low / factors).min()), float((high / factors).max()), whole)
