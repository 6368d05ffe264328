"""Codes while training: the reference's arithmetic, gradients, initialisation, dead codes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hart_edge.evaluation.reconstruction import counts_of
from hart_edge.reference.config import TokenizerConfig
from hart_edge.reference.quantizer import Quantizer
from hart_edge.training.errors import TrainingError
from hart_edge.training.tokenizer.codebook import CodeUse, drawn, place, replace
from hart_edge.training.tokenizer.quantize import quantize, straight_through

PATCH_NUMS = (1, 2, 4)


def make(codes: int = 12, seed: int = 0) -> tuple[Quantizer, Tensor]:
    """A random quantizer, and latents (3, 6, 4, 4)."""
    generator = torch.Generator().manual_seed(seed)
    quantizer = Quantizer(TokenizerConfig(PATCH_NUMS, codes, z_channels=6))
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    return quantizer, torch.randn(3, 6, 4, 4, generator=generator)


# Quantisation.


def test_codes_equal_those_of_the_reference() -> None:
    quantizer, latent = make()
    found = quantize(quantizer, latent, beta=0.25)
    indices, f_hat, _ = quantizer.encode(latent, phi_at_last=True)
    assert all(torch.equal(a, b) for a, b in zip(found.indices, indices, strict=True))
    assert torch.allclose(found.f_hat, f_hat, atol=1e-6)
    assert [each.shape for each in found.tokens] == [(3, 1, 6), (3, 4, 6), (3, 16, 6)]
    assert all(torch.equal(quantizer.nearest(t), i) for t, i in zip(found.tokens, found.indices, strict=True))


def test_the_loss_is_the_mean_over_the_scales() -> None:
    quantizer, latent = make()
    f_hat, errors = torch.zeros_like(latent), []
    for scale, indices in enumerate(quantizer.encode(latent, phi_at_last=True)[0]):
        f_hat = f_hat + quantizer.expand(quantizer.codebook(indices), scale)
        errors.append((f_hat - latent).square().mean().item())
    assert quantize(quantizer, latent, beta=0.25).loss.item() == pytest.approx(1.25 * sum(errors) / 3, rel=1e-5)
    assert quantize(quantizer, latent, beta=0.0).loss.item() == pytest.approx(sum(errors) / 3, rel=1e-5)


def test_the_loss_moves_the_encoder_by_beta_and_the_codes_that_were_chosen() -> None:
    quantizer, latent = make()
    latent.requires_grad_(True)
    found = quantize(quantizer, latent, beta=0.25)
    found.loss.backward()
    f_hat, expected = torch.zeros_like(latent), torch.zeros_like(latent)
    for scale, indices in enumerate(found.indices):
        f_hat = f_hat + quantizer.expand(quantizer.codebook(indices), scale)
        expected += 0.25 * 2 * (latent - f_hat).detach() / latent.numel() / 3
    assert latent.grad is not None and torch.allclose(latent.grad, expected, atol=1e-7)
    moved = quantizer.codebook.weight.grad.abs().sum(1) > 0
    assert torch.equal(moved, counts_of(found.indices, 12) > 0)
    assert all(p.weight.grad.abs().sum() > 0 for p in (quantizer.phi[0], quantizer.phi[3]))


def test_straight_through_has_the_value_of_one_and_the_gradient_of_the_other() -> None:
    latent, f_hat = torch.zeros(2, requires_grad=True), torch.tensor([3.0, 4.0], requires_grad=True)
    through = straight_through(latent, f_hat)
    (through * torch.tensor([5.0, 6.0])).sum().backward()
    assert through.tolist() == [3.0, 4.0] and f_hat.grad is None
    assert latent.grad is not None and latent.grad.tolist() == [5.0, 6.0]


# Initialisation and dead codes.


def test_initialised_codes_are_all_in_use_and_near_the_data() -> None:
    quantizer, _ = make(codes=32)
    latents = torch.randn(20, 6, 4, 4, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for phi in quantizer.phi:  # the identity, as at the start of training
            torch.nn.init.dirac_(phi.weight)
            torch.nn.init.zeros_(phi.bias)
        before = quantize(quantizer, latents, 0.0).loss.item()
        place(quantizer, latents, np.random.default_rng(0))
        found = quantize(quantizer, latents, 0.0)
    assert int((counts_of(found.indices, 32) > 0).sum()) >= 31
    assert found.loss.item() < 0.95 * before  # noise of this many dimensions has no clusters to find


def test_initialisation_depends_on_the_seed_only() -> None:
    books = []
    for _ in range(2):
        quantizer, latent = make(codes=32)
        place(quantizer, latent, np.random.default_rng(3))
        books.append(quantizer.codebook.weight.detach().clone())
    assert torch.equal(*books)


def test_codes_can_be_initialised_from_equal_latents() -> None:
    quantizer, _ = make()
    place(quantizer, torch.ones(2, 6, 4, 4), np.random.default_rng(0))
    assert torch.isfinite(quantizer.codebook.weight).all()


def test_latents_that_are_not_finite_are_refused() -> None:
    quantizer, latent = make()
    with pytest.raises(TrainingError, match="codebook: expected finite latents to place it on"):
        place(quantizer, latent * torch.inf, np.random.default_rng(0))


def test_a_code_is_dead_when_it_is_never_chosen() -> None:
    use = CodeUse(4, memory=0.9)
    counts = torch.tensor([10.0, 10.0, 20.0, 0.0])  # in units of the even share: 1, 1, 2, 0
    steps = 0
    while not len(use.dead(0.1)):
        use.note(counts)
        steps += 1
    assert steps == 22 and use.dead(0.1).tolist() == [3]  # 0.9 ** 22 is the first power below 0.1
    assert use.use[:2].tolist() == pytest.approx([1, 1])
    use.revive(use.dead(0.1))
    assert use.dead(0.1).tolist() == [] and use.use[3] == 1


def test_tokens_are_drawn_by_weight() -> None:
    tokens = torch.arange(8.0).reshape(4, 2)
    weight = torch.tensor([0.0, 1.0, 0.0, 1.0])
    found = drawn(tokens, 50, np.random.default_rng(0), weight)
    nearest = torch.cdist(found, tokens).argmin(1)
    assert set(nearest.tolist()) == {1, 3}
    assert set(torch.cdist(drawn(tokens, 50, np.random.default_rng(0), torch.zeros(4)), tokens).argmin(1).tolist()) == {
        0, 1, 2, 3,
    }  # fmt: skip


def test_a_replaced_code_is_reset_in_every_state() -> None:
    codebook, average, moment = torch.ones(4, 2), torch.ones(4, 2), torch.ones(4, 2)
    replace(codebook, torch.tensor([1, 3]), torch.full((2, 2), 5.0), [average], [moment])
    assert codebook[:, 0].tolist() == average[:, 0].tolist() == [1, 5, 1, 5]
    assert moment[:, 0].tolist() == [1, 0, 1, 0]
