"""Ranges from a histogram: what each rule clips, checked by the error that it minimises."""

from __future__ import annotations

import numpy as np
import pytest

from hart_edge.calib.calibrate.range_rules import RULES, RangeRule, fake_quantize, find_range
from hart_edge.calib.calibrate.statistics import Histogram, Summary
from hart_edge.errors import BuildError


def summary(values: np.ndarray) -> Summary:
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    return Summary(float(values.min()), float(values.max()), histogram)


def error(values: np.ndarray, low: float, high: float) -> float:
    return float(np.square(values - fake_quantize(values, low, high)).mean())


def normal(count: int = 100_000) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(count)


def test_min_max_clips_nothing() -> None:
    values = np.append(normal(1000), 50.0)
    assert find_range(RangeRule.MIN_MAX, summary(values), "x") == (values.min(), 50.0)


def test_percentile_clips_one_value_in_10000_at_each_end() -> None:
    values = np.append(normal(1_000_000), [50.0, -60.0])
    low, high = find_range(RangeRule.PERCENTILE, summary(values), "x")
    assert (low, high) == pytest.approx((np.quantile(values, 1e-4), np.quantile(values, 1 - 1e-4)), abs=0.03)


@pytest.mark.long
@pytest.mark.parametrize("spread", ["normal", "outlier", "one side"])
def test_mse_has_the_smallest_error_of_all_clipped_shares(spread: str) -> None:
    values = normal()
    if spread == "outlier":
        values = np.append(normal(1_000_000), 30.0)
    if spread == "one side":
        values = np.abs(values)
    low, high = find_range(RangeRule.MSE, summary(values), "x")
    found = error(values, low, high)
    ends = min(values.min(), 0), max(values.max(), 0)
    limits = np.linspace(0.2, 1, 65) * np.abs(ends).max()
    best = min(error(values, max(ends[0], -limit), min(ends[1], limit)) for limit in limits)
    assert found <= 1.02 * best
    if spread == "outlier":
        assert high < 15 and found < 0.5 * error(values, *ends)


def test_entropy_clips_an_outlier_but_not_the_other_values() -> None:
    values = np.append(normal(1_000_000), 30.0)
    low, high = find_range(RangeRule.ENTROPY, summary(values), "x")
    assert 3 < high < 15 and -6 < low < -3
    flat = np.random.default_rng(1).uniform(-1, 1, 100_000)
    assert find_range(RangeRule.ENTROPY, summary(flat), "x") == pytest.approx((-1, 1), abs=0.05)


@pytest.mark.parametrize("rule", list(RangeRule))
def test_every_rule_stays_inside_the_extremes(rule: RangeRule) -> None:
    for values in (normal(1000), np.abs(normal(1000)) + 2, -np.abs(normal(1000)), normal(3) * 1e-6, normal(50) * 1e6):
        low, high = find_range(rule, summary(values), "x")
        assert values.min() <= low < high <= values.max()
    assert set(RULES) == set(RangeRule)


@pytest.mark.parametrize("rule", list(RangeRule))
@pytest.mark.parametrize("value", [0.0, -2.5])
def test_a_constant_is_refused(rule: RangeRule, value: float) -> None:
    message = rf"^mlp\.x: calibration saw nothing but {value:g}, so no range can be told from it; calibrate on other"
    with pytest.raises(BuildError, match=message):
        find_range(rule, summary(np.full(10, value)), "mlp.x")


def test_an_empty_histogram_is_refused() -> None:
    with pytest.raises(BuildError, match=r"^x: calibration saw no value of it; please report it$"):
        find_range(RangeRule.MSE, Summary(0, 1, Histogram()), "x")


def test_values_are_rounded_to_255_steps() -> None:
    values = np.linspace(-1, 2, 1000)
    found = fake_quantize(values, -1, 2)
    assert len(np.unique(found)) == 256
    assert np.abs(found - values).max() <= 3 / 255 / 2 + 1e-12
    assert fake_quantize(np.array([-9.0, 9.0]), -1, 2).tolist() == [-1, 2]
