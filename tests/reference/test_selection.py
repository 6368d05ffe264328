"""Which tokens of a scale are computed, and where what they make goes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hart_edge.bundle.settings import Speed
from hart_edge.reference.dial import dial_of
from hart_edge.reference.selection import change, order_of, rows_at, sources_of, spread


def test_change_is_twice_one_minus_the_cosine_of_two_latents() -> None:
    generator = torch.Generator().manual_seed(0)
    now, before = torch.randn(2, 2, 9, 8, generator=generator)
    expected = 2 - 2 * F.cosine_similarity(now, before, dim=-1)
    assert torch.allclose(change(now, before), expected, atol=1e-5)
    assert torch.allclose(change(now, 3 * now), torch.zeros(2, 9), atol=1e-12)
    assert change(torch.zeros(1, 1, 8), before[:1, :1]).item() == pytest.approx(1)  # and no division by zero


def test_a_change_keeps_its_digits_where_latents_hardly_turn() -> None:
    generator = torch.Generator().manual_seed(0)
    now = torch.randn(1, 64, 8, generator=generator)
    before = now + 1e-4 * torch.randn(1, 64, 8, generator=generator)
    exact = change(now.double(), before.double())
    assert float(((change(now, before) - exact) / exact).abs().max()) < 0.02
    assert exact.max() < 1e-6  # where 1 - cosine has one digit at most


def test_tokens_come_in_the_order_of_their_change() -> None:
    assert order_of(torch.tensor([[0.1, 0.4, 0.2, 0.9], [4, 3, 2, 1]])).tolist() == [[3, 1, 2, 0], [0, 1, 2, 3]]


def test_what_was_computed_goes_back_to_its_token_and_the_others_get_nothing() -> None:
    generator = torch.Generator().manual_seed(1)
    order = torch.stack([torch.randperm(9, generator=generator) for _ in range(2)])  # of two images
    scale = torch.randn(2, 9, 4, generator=generator)
    expected = torch.zeros(2, 9, 4)
    for image in range(2):
        expected[image, order[image, :6]] = scale[image, order[image, :6]]
    rows = rows_at(scale, order[:, :6])
    assert torch.equal(rows[1], scale[1, order[1, :6]])
    assert torch.equal(spread(rows, sources_of(order, 6)), expected)


def test_all_tokens_in_their_own_places_stay_as_they_are() -> None:
    rows = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(2))
    assert torch.equal(spread(rows, torch.arange(9)[None]), rows)


@pytest.mark.parametrize(
    ("speed", "patch_nums", "kept"),
    [
        (Speed.EXACT, (1, 2, 3, 4), (1, 4, 9, 16)),
        (Speed.BALANCED, (1, 2, 3, 4), (1, 4, 9, 16)),
        (Speed.FAST, (1, 2, 3, 4), (1, 4, 7, 12)),
        (Speed.FAST, (1, 2, 3), (1, 4, 7)),  # no scale is thinned that has not two others before it
        (Speed.FAST, (1, 2), (1, 4)),
    ],
)
def test_fast_keeps_three_tokens_of_four(speed: Speed, patch_nums: tuple[int, ...], kept: tuple[int, ...]) -> None:
    dial = dial_of(speed, patch_nums, 8)
    assert dial.kept == kept
    for scale, side in enumerate(patch_nums):
        assert dial.kept[scale] == side * side or scale > dial.guided  # one branch alone is there
