"""The small parts of the loop: learning rate, order of examples and random numbers, moving average."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from hart_edge.training.average import Average
from hart_edge.training.order import StepPurpose, random_of, rows_of, share_of, shares_of
from hart_edge.training.recipe import Optimisation
from hart_edge.training.schedule import learning_rate
from hart_edge.units import duration

# The learning rate.


def test_the_rate_rises_in_a_line_and_falls_in_a_cosine() -> None:
    o = Optimisation(steps=110, warmup=10, learning_rate=2.0, final=0.1)
    assert [learning_rate(o, step) for step in (0, 4, 9, 10)] == pytest.approx([0.2, 1.0, 2.0, 2.0])
    assert learning_rate(o, 60) == pytest.approx((2.0 + 0.2) / 2)
    assert learning_rate(o, 109) == pytest.approx(0.2 + 1.8 * (1 + math.cos(math.pi * 0.99)) / 2)


def test_without_a_warm_up_the_first_step_has_the_full_rate() -> None:
    assert learning_rate(Optimisation(steps=10, warmup=0, learning_rate=0.5), 0) == 0.5


# Order.


def test_every_epoch_has_every_example_once_in_another_order() -> None:
    seen = np.concatenate([rows_of(10, 4, step, seed=3) for step in range(5)])  # two epochs; step 2 is in both
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    assert rows_of(10, 4, 0, seed=4).tolist() != seen[:4].tolist()


def test_a_batch_may_be_larger_than_the_data() -> None:
    assert np.bincount(rows_of(3, 7, 0, seed=0)).sum() == 7
    assert set(np.bincount(rows_of(3, 7, 0, seed=0))) == {2, 3}


def test_a_step_does_not_depend_on_the_steps_before() -> None:
    first = [rows_of(100, 8, step, seed=1).tolist() for step in range(30)]
    assert rows_of(100, 8, 29, seed=1).tolist() == first[29]
    draws = {p: random_of(1, 29, p).random(3).tolist() for p in StepPurpose}
    assert len({tuple(values) for values in draws.values()}) == len(StepPurpose)
    assert random_of(1, 29, StepPurpose.CODEBOOK).random(3).tolist() == draws[StepPurpose.CODEBOOK]


def test_without_groups_the_order_is_a_permutation() -> None:
    assert shares_of((), (), 0.7) is None
    assert shares_of(("a", "", "a", "b"), (3.0,) * 4, 0.0) is None
    assert shares_of(("", "", ""), (0.1,) * 3, 1.0) is None  # each is a group of its own


def test_groups_are_drawn_by_their_size_and_examples_by_their_weight() -> None:
    groups, weights = ("a", "b", "a", "", "a", "", "a"), (1.0, 5.0, 3.0, 1.0, 1.0, 1.0, 1.0)
    every = {balance: shares_of(groups, weights, balance) for balance in (0.0, 0.5, 1.0)}
    assert every[0.0] == pytest.approx(np.array([2 / 3, 1, 2, 1, 2 / 3, 1, 2 / 3]) / 7)
    assert every[0.5] == pytest.approx(np.array([1 / 3, 1, 1, 1, 1 / 3, 1, 1 / 3]) / 5)
    assert every[1.0] == pytest.approx(np.array([1 / 6, 1, 1 / 2, 1, 1 / 6, 1, 1 / 6]) / 4)


def test_an_epoch_has_the_shares_rounded_and_many_epochs_have_them_exactly() -> None:
    shares = random_of(0, 0, StepPurpose.ORDER).random(50) ** 3
    shares /= shares.sum()
    epochs = [np.bincount(rows_of(50, 50, step, 7, shares), minlength=50) for step in range(200)]
    assert all(np.abs(counts - 50 * shares).max() < 1 and counts.sum() == 50 for counts in epochs)
    assert np.abs(np.sum(epochs, 0) - 200 * 50 * shares).max() < 4
    rare = int(np.abs(50 * shares - 0.3).argmin())
    gaps = np.diff([step for step, counts in enumerate(epochs) if counts[rare]])
    assert gaps.max() <= 2 / (50 * shares[rare]) + 1  # no example is absent for long


def test_drawn_by_shares_a_step_does_not_depend_on_the_steps_before() -> None:
    shares = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625])
    whole = rows_of(5, 12, 0, 1, shares)
    parts = np.concatenate([rows_of(5, 3, step, 1, shares) for step in range(4)])
    assert whole.tolist() == parts.tolist()
    assert rows_of(5, 12, 0, 2, shares).tolist() != whole.tolist()


def test_shares_make_up_the_batch() -> None:
    batch = list(range(12))
    assert [batch[share_of(12, process, 3)] for process in range(3)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


# Moving average.


def test_the_average_of_two_updates() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.constant_(module.weight, 1.0)
    average = Average(module, decay=0.15)
    nn.init.constant_(module.weight, 2.0)
    average.update(0)  # decay (1 + 0) / (10 + 0) = 0.1
    assert average.state["weight"].item() == pytest.approx(0.1 * 1 + 0.9 * 2)
    nn.init.constant_(module.weight, 4.0)
    average.update(1)  # 2 / 11 is above 0.15
    assert average.state["weight"].item() == pytest.approx(0.15 * 1.9 + 0.85 * 4)


def test_the_average_replaces_the_weights_for_a_while() -> None:
    module = nn.Linear(2, 2).train()
    average = Average(module, 0.9)
    own = module.weight.detach().clone()
    average.state["weight"].fill_(7.0)
    with pytest.raises(KeyError), average.applied() as lent:
        assert not lent.training and torch.all(lent.weight == 7.0)
        raise KeyError
    assert module.training and torch.equal(module.weight, own)


# Words.


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59, "59 s"), (61, "1 min"), (3599, "1 h 00 min"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
