"""Choosing tokens: what top-k and top-p keep, the distribution of Gumbel-max, the formula of smooth mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hart_edge.reference.sampling import (
    choose,
    default_top_k,
    guidance_ramp,
    guide,
    gumbel,
    keep_likely,
    smooth_temperatures,
)
from hart_edge.runtime.random import Purpose, uniform


def published_filter(row: NDArray, top_k: int, top_p: float) -> NDArray:
    """The codes that the published sampler keeps for a token. It drops those below the k-th largest, then, from the
    least likely upwards, drops codes while their sum is no more than 1 - top_p; the likeliest always stays."""
    kept = row >= np.sort(row)[-top_k]
    if top_p >= 1:
        return kept
    masked = np.where(kept, row, -np.inf).astype(np.float64)
    probability = np.exp(masked - masked.max())
    probability /= probability.sum()
    order = np.argsort(masked, kind="stable")
    dropped = np.cumsum(probability[order]) <= 1 - top_p
    dropped[-1] = False
    kept[order[dropped]] = False
    return kept


def kept_by_ours(logits: NDArray, top_k: int, top_p: float, candidates: int) -> NDArray:
    tensors = torch.from_numpy(logits), torch.tensor([top_k]), torch.tensor([top_p])
    return keep_likely(*tensors, candidates).numpy()


def settings(**changed: object) -> dict:
    default = {"ratio": 0.5, "temperature": 0.2, "top_k": 5, "top_p": 1.0, "smooth": False}
    return {name: torch.tensor([value]) for name, value in (default | changed).items()}


@pytest.mark.parametrize("top_k", [1, 2, 7, 30])
@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.5, 0.9, 0.999, 1.0])
def test_top_k_and_top_p(top_k: int, top_p: float) -> None:
    logits = 3 * np.random.default_rng(1).standard_normal((2, 20, 40)).astype(np.float32)
    expected = np.array([[published_filter(row, top_k, top_p) for row in rows] for rows in logits])
    np.testing.assert_array_equal(kept_by_ours(logits, top_k, top_p, candidates=30), expected)
    if top_p == 1:
        assert (expected.sum(-1) == top_k).all()
    if top_p == 1e-6:
        assert (expected.sum(-1) == 1).all()


def test_ties_with_the_last_kept_are_kept() -> None:
    logits = np.array([[[3, 2, 2, 2, 1, 0]]], np.float32)
    for top_k, count in ((1, 1), (2, 4), (3, 4), (4, 4), (5, 5), (6, 6)):
        found = kept_by_ours(logits, top_k, 1.0, candidates=6)
        assert found.sum() == count
        np.testing.assert_array_equal(found[0, 0], published_filter(logits[0, 0], top_k, 1.0))


def test_equal_logits_are_all_kept() -> None:
    assert kept_by_ours(np.zeros((1, 2, 9), np.float32), 3, 1.0, candidates=5).all()


def test_tables_of_the_published_model() -> None:
    assert guidance_ramp(10) == pytest.approx([s / 9 for s in range(9)] + [8 / 9])
    assert guidance_ramp(2) == [0, 0]
    assert default_top_k(14, 4096) == [600] * 7 + [300] * 7
    assert default_top_k(9, 400) == [400] * 7 + [300] * 2
    assert default_top_k(3, 10) == [10] * 3
    found = smooth_temperatures(21)
    assert found[0] == 0.27
    assert found[10] == pytest.approx(0.27 * (1 - 0.95 / 2))
    assert found[20] == found[19] == pytest.approx(0.27 * (1 - 0.95 * 0.95))
    assert min(smooth_temperatures(1000)) == pytest.approx(0.27 * (1 - 0.95 * 998 / 999))
    assert min(smooth_temperatures(1000)) > 0.005  # the ramp stays above the floor


def test_guidance() -> None:
    conditional, unconditional = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.5, 1.0], [5.0, 4.0]])
    assert guide(conditional, unconditional, 2.0).tolist() == [[2.0, 4.0], [-1.0, 4.0]]
    assert torch.equal(guide(conditional, unconditional, 0.0), conditional)


def test_gumbel_max_draws_the_softmax() -> None:
    """Frequencies over 20,000 draws from the runtime's own stream, within 4 sigma of the softmax"""
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, 0.5, 0.5, -3.0, 1.5])
    draws, codebook = 20_000, torch.eye(8)
    numbers = torch.from_numpy(uniform(11, Purpose.TOKENS, 3, 0, (1, draws, 8)))
    indices, codes, latent = choose(logits.expand(1, draws, 8), numbers, codebook, **settings(top_k=8), candidates=8)
    probability = logits.double().softmax(-1).numpy()
    frequency = np.bincount(indices.flatten().numpy(), minlength=8) / draws
    sigma = np.sqrt(probability * (1 - probability) / draws)
    assert (np.abs(frequency - probability) / sigma).max() < 4
    assert torch.equal(codes, latent)
    # Among the three most likely codes the distribution is the softmax, renormalised.
    indices, _, _ = choose(logits.expand(1, draws, 8), numbers, codebook, **settings(top_k=3), candidates=8)
    frequency = np.bincount(indices.flatten().numpy(), minlength=8) / draws
    kept = probability * np.isin(np.arange(8), [0, 1, 7])
    kept /= kept.sum()
    assert set(np.flatnonzero(frequency)) == {0, 1, 7}
    assert (np.abs(frequency - kept) <= 4 * np.sqrt(kept * (1 - kept) / draws)).all()


@pytest.mark.parametrize("ratio", [0.0, 0.4, 1.0])
def test_smooth_mode(ratio: float) -> None:
    random, tau = np.random.default_rng(2), 0.27 * (1 - 0.95 * ratio)
    logits = random.standard_normal((2, 6, 12)).astype(np.float32)
    numbers = random.uniform(0.01, 0.99, (2, 6, 12)).astype(np.float32)
    codebook = random.standard_normal((12, 4)).astype(np.float32)
    indices, codes, latent = choose(
        torch.from_numpy(logits),
        torch.from_numpy(numbers),
        torch.from_numpy(codebook),
        **settings(ratio=ratio, temperature=tau, smooth=True, top_k=5),
        candidates=8,
    )
    for b in range(2):
        for i in range(6):
            likely = np.argsort(-logits[b, i])[:5]
            noise = -np.log(-np.log(numbers[b, i, likely].astype(np.float64)))
            exponent = (logits[b, i, likely] * (1 + ratio) + noise) / tau
            weight = np.exp(exponent - exponent.max())
            expected = weight / weight.sum() @ codebook[likely]
            np.testing.assert_allclose(latent[b, i].numpy(), expected, atol=2e-5)
            assert int(indices[b, i]) == likely[(logits[b, i, likely] + noise).argmax()]
            np.testing.assert_array_equal(codes[b, i].numpy(), codebook[int(indices[b, i])])
    assert not torch.allclose(latent, codes)


def test_top_k_of_one_is_the_argmax_whatever_the_noise() -> None:
    logits = torch.from_numpy(np.random.default_rng(3).standard_normal((2, 30, 25)).astype(np.float32))
    codebook = torch.arange(25.0)[:, None]
    for seed in range(4):
        numbers = torch.from_numpy(uniform(seed, Purpose.TOKENS, 0, 0, (2, 30, 25)))
        for smooth in (False, True):
            given = settings(top_k=1, smooth=smooth)
            indices, _, latent = choose(logits, numbers, codebook, **given, candidates=20)
            assert torch.equal(indices, logits.argmax(-1))
            assert torch.equal(latent[..., 0], logits.argmax(-1).float())


def test_extreme_uniforms_stay_finite() -> None:
    ends = torch.tensor([2.0**-24, 1 - 2.0**-24])  # the smallest and largest that runtime.random draws
    assert gumbel(ends).tolist() == pytest.approx([-2.8115, 16.6355], abs=1e-3)
