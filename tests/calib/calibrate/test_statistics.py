"""Statistics of calibration: exact extremes, the same weight for each call, a size independent of the prompts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from hart_edge.calib.calibrate.statistics import BINS, ROWS, Histogram, TensorStatistics


def add(statistics: TensorStatistics, call: int, values: np.ndarray, seed: int = 0) -> None:
    """Add a call with values (n, C), whose range outputs return the first ROWS."""
    lots = np.random.default_rng(seed).random(min(ROWS, len(values)))
    statistics.call(call).add(values.min(0), values.max(0), values.mean(0), values[:ROWS], lots)


def test_histogram_against_numpy() -> None:
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    histogram = Histogram()
    histogram.add(values)
    assert histogram.reach == 4.0  # the next power of two above the largest value
    wanted, _ = np.histogram(values, BINS, (-4, 4))
    assert np.abs(histogram.counts * len(values) - wanted).sum() < 5  # values at bin edges, rounded in float32
    assert histogram.centres()[[0, -1]] == pytest.approx([-4 + 4 / BINS, 4 - 4 / BINS])


def test_a_wider_reach_moves_counts_to_the_right_bins() -> None:
    histogram, whole = Histogram(), Histogram()
    small, large = np.linspace(-0.9, 0.9, 100, dtype=np.float32), np.linspace(-30, 30, 100, dtype=np.float32)
    histogram.add(small)
    histogram.add(large)
    whole.widen(30)
    whole.add(small)
    whole.add(large)
    assert histogram.reach == whole.reach == 32.0
    assert np.array_equal(histogram.counts, whole.counts)
    assert histogram.counts.sum() == pytest.approx(2)


def test_every_call_has_the_same_weight() -> None:
    """A call of 2 rows at 1 and one of 1000 rows at 3 each make half of the histogram, and the mean is 2."""
    statistics = TensorStatistics()
    for prompt in range(3):
        add(statistics, 0, np.full((2, 4), 1, np.float32), prompt)
        add(statistics, 1, np.full((1000, 4), 3, np.float32), prompt)
    histogram = statistics.summary().histogram
    low, high = histogram.counts[histogram.centres() < 2].sum(), histogram.counts[histogram.centres() > 2].sum()
    assert (low, high) == pytest.approx((0.5, 0.5))
    assert statistics.means() == pytest.approx([2, 2, 2, 2])


def test_extremes_are_averaged_over_prompts_and_those_of_the_widest_call() -> None:
    statistics = TensorStatistics()
    for prompt, (first, second) in enumerate([(4.0, 2.0), (0.0, 7.0), (2.0, 6.0)]):
        add(statistics, 0, np.array([[-first, first]], np.float32), prompt)
        add(statistics, 1, np.array([[-1, second]], np.float32), prompt)
    assert statistics.extremes() == pytest.approx((-2, 5))
    low, high = statistics.channels()  # exact over all prompts
    assert low.tolist() == [-4, 0] and high.tolist() == [0, 7]


def test_rows_are_a_fair_sample_of_all_prompts() -> None:
    statistics = TensorStatistics()
    generator = np.random.default_rng(3)
    for prompt in range(40):
        values = np.full((ROWS, 2), prompt, np.float32)
        statistics.call(0).add(values[0], values[0], values[0], values, generator.random(ROWS))
    rows = statistics.rows()
    assert rows.shape == (ROWS, 2)
    assert len(np.unique(rows)) > 15  # 32 of 40 x 32: nearly as many prompts as rows
    assert 10 < rows.mean() < 30
    assert statistics.rows(8).shape == (8, 2)


def test_size_does_not_depend_on_the_prompts() -> None:
    statistics = TensorStatistics()
    sizes = []
    for prompt in range(30):
        for call in range(3):
            add(statistics, call, np.random.default_rng(prompt).standard_normal((50, 8)).astype(np.float32), prompt)
        sizes.append(len(pickle.dumps(statistics)))
    assert max(sizes[1:]) - min(sizes[1:]) < 500


def test_smoothing_divides_channels() -> None:
    statistics = TensorStatistics()
    values = np.array([[1.0, -100.0], [0.5, 80.0]], np.float32)
    add(statistics, 0, values)
    summary = statistics.smoothed(np.array([0.5, 50.0], np.float32))
    assert (summary.low, summary.high) == pytest.approx((-2, 2))
    centres = summary.histogram.centres()
    shares = [summary.histogram.counts[np.abs(centres - x) < 0.01].sum() for x in (2, -2, 1, 1.6)]
    assert shares == pytest.approx([0.25] * 4)
