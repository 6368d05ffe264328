"""Figures of logits against a naive computation token by token; their sums over calls and means over scales."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hart_edge.calib.select.logits import LogitError, add_errors, compare_logits, mean_kl
from tests.calib.select.naive_logits import naive


def test_logits_are_compared_token_by_token() -> None:
    dice = np.random.default_rng(3)
    expected = 2 * dice.standard_normal((2, 30, 11))
    found = expected + 0.4 * dice.standard_normal(expected.shape)
    error = compare_logits(torch.from_numpy(expected), torch.from_numpy(found))
    cosine, largest, top_1, kl = naive(expected.reshape(-1, 11), found.reshape(-1, 11))
    assert error.tokens == 60 and 0 < error.same < 60
    assert (error.cosine / 60, error.largest, error.same / 60, error.kl / 60) == pytest.approx(
        (cosine, largest, top_1, kl), rel=1e-9
    )
    assert kl == pytest.approx(0.0698, abs=0.03)  # about half the variance of the differences
    same = compare_logits(torch.from_numpy(expected), torch.from_numpy(expected))
    assert (same.same, same.largest, same.kl) == (60, 0.0, 0.0)


def test_errors_add_up_over_calls() -> None:
    first, second = LogitError(2, 1, 1.5, 0.5, 0.2), LogitError(8, 8, 7.5, 0.25, 0.4)
    assert add_errors([first, second]) == LogitError(10, 9, 9.0, 0.5, pytest.approx(0.6))


def test_every_scale_has_the_same_weight() -> None:
    assert mean_kl([LogitError(2, 1, 1.5, 0.5, 0.2), LogitError(8, 8, 7.5, 0.25, 0.4)]) == pytest.approx(0.075)
