"""What calibration remembers of a tensor: extremes, means, a histogram and a few rows, of every call of a prompt apart.

In: what the observers of observation.py put out at each call. Out: a Summary, which observers.py turns into a range.
The memory depends on the channels and the calls of one prompt, never on the number of prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

BINS = 4096  # over [-reach, reach]: 16 or more to a step of UINT8 where values fill half of the reach
ROWS = 32  # rows that are looked at in each call, and kept of all prompts' calls at a place of the loop

Floats = NDArray[np.float32]


class Histogram:
    """Shares of values over [-reach, reach]. The reach is a power of two and doubles as values ask for it."""

    def __init__(self) -> None:
        self.reach = 2.0**-20
        self.counts = np.zeros(BINS)

    def add(self, values: Floats) -> None:
        """Add values that weigh 1 together, however many they are."""
        self.widen(float(np.abs(values).max(initial=0)))
        places = ((values.ravel() / self.reach + 1) * (BINS / 2)).astype(np.int64).clip(0, BINS - 1)
        self.counts += np.bincount(places, minlength=BINS) / values.size

    def widen(self, magnitude: float) -> None:
        while self.reach < magnitude:
            middle = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(middle, BINS // 4)
            self.reach *= 2

    def centres(self) -> NDArray[np.float64]:
        return (np.arange(BINS) + 0.5) * (2 * self.reach / BINS) - self.reach


@dataclass(frozen=True)
class Summary:
    """A tensor in the eyes of an observer: its extremes, and how its values are spread over a histogram."""

    low: float
    high: float
    histogram: Histogram


@dataclass
class Call:
    """One place of the loop: the same call of every prompt."""

    prompts: int = 0
    least: float = 0.0  # sum over prompts of the smallest value
    most: float = 0.0  # and of the largest
    low: Floats = field(default_factory=lambda: np.zeros(0, np.float32))  # (C,) of all prompts
    high: Floats = field(default_factory=lambda: np.zeros(0, np.float32))  # (C,)
    mean: Floats = field(default_factory=lambda: np.zeros(0, np.float32))  # (C,) summed over prompts
    rows: Floats = field(default_factory=lambda: np.zeros((0, 0), np.float32))  # at most (ROWS, C)
    lots: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # drawn for each row; the smallest stay
    histogram: Histogram = field(default_factory=Histogram)

    def add(self, low: Floats, high: Floats, mean: Floats, rows: Floats, lots: NDArray[np.float64]) -> None:
        self.histogram.add(rows)
        self.least, self.most = self.least + float(low.min()), self.most + float(high.max())
        if self.prompts:
            low, high, mean = np.minimum(self.low, low), np.maximum(self.high, high), self.mean + mean
            rows, lots = np.concatenate([self.rows, rows]), np.concatenate([self.lots, lots])
        kept = np.sort(np.argsort(lots)[:ROWS])
        self.low, self.high, self.mean, self.rows, self.lots = low, high, mean, rows[kept], lots[kept]
        self.prompts += 1


class TensorStatistics:
    """All calls of a tensor. Every call has the same say: the first scale's as much as the last one's."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def call(self, index: int) -> Call:
        """The place of the loop with this number; calls come in order."""
        if index == len(self.calls):
            self.calls.append(Call())
        return self.calls[index]

    def channels(self) -> tuple[Floats, Floats]:
        """Lowest and highest value per channel, (C,), of all prompts and calls."""
        return np.min([call.low for call in self.calls], axis=0), np.max([call.high for call in self.calls], axis=0)

    def extremes(self) -> tuple[float, float]:
        """Of the widest call, averaged over prompts: one unusual prompt does not stretch the range for all others."""
        return min(call.least / call.prompts for call in self.calls), max(c.most / c.prompts for c in self.calls)

    def means(self) -> Floats:
        """Mean per channel, (C,)."""
        return np.mean([call.mean / call.prompts for call in self.calls], axis=0, dtype=np.float32)

    def rows(self, most: int | None = None) -> Floats:
        """Rows of all calls, (n, C), the same number of each; `most` in all."""
        each = ROWS if most is None else max(1, most // len(self.calls))
        return np.concatenate([call.rows[:each] for call in self.calls])

    def summary(self) -> Summary:
        """Of the tensor as it is."""
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
        """Of the tensor with every channel divided by its factor (C,); spread as the kept rows are."""
        low, high = self.channels()
        whole = Histogram()
        whole.add(self.rows() / factors)
        return Summary(float((low / factors).min()), float((high / factors).max()), whole)
