"""The losses of a reconstruction, on pictures small enough to calculate by hand, and those of the critic."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hart_edge.training.tokenizer.critic import Adversarial, Critic, adversarial_loss, critic_loss, frozen
from hart_edge.training.tokenizer.losses import Losses, edge_error, reconstruction_terms, weighted


def test_a_constant_error_has_no_edges() -> None:
    target = torch.rand(2, 3, 16, 16)
    terms = reconstruction_terms(target + 0.5, target)
    assert terms["square"].item() == pytest.approx(0.25, rel=1e-5)
    assert terms["absolute"].item() == pytest.approx(0.5, rel=1e-5)
    assert terms["edges"].item() == pytest.approx(0, abs=1e-6)


def test_edges_of_one_column() -> None:
    """An error of 1 in the left four of eight columns gives one difference of 1 per row at all three resolutions."""
    error = torch.zeros(1, 3, 8, 8)
    error[..., :4] = 1
    by_level = [1 / 7 / 2, 1 / 3 / 2, 1 / 1 / 2]  # mean over the differences along rows, none along columns
    assert edge_error(error).item() == pytest.approx(sum(by_level) / 3)


def test_terms_are_weighted() -> None:
    terms = {"square": torch.tensor(2.0), "edges": torch.tensor(3.0), "codes": torch.tensor(5.0)}
    assert weighted(terms, Losses(square=1, absolute=9, edges=0.5, codes=0.1)).item() == pytest.approx(4.0)


# The critic.


def test_the_critic_judges_patches() -> None:
    scores = Critic(Adversarial(weight=1.0, ch=8, layers=2))(torch.zeros(2, 3, 32, 32))
    assert scores.shape == (2, 1, 6, 6)


def test_hinge() -> None:
    real, made = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 0.0])
    assert critic_loss(real, made).item() == pytest.approx((0.25 + 0.5) / 2)


def test_the_adversarial_gradient_has_the_norm_of_the_reconstruction_gradient() -> None:
    layer = nn.Linear(3, 3)
    out = layer(torch.randn(5, 3, generator=torch.Generator().manual_seed(0)))
    reconstruction = out.square().mean()
    adversarial = adversarial_loss(100 * out.sum(1), reconstruction, layer.weight, 0.5)
    (one,) = torch.autograd.grad(reconstruction, layer.weight, retain_graph=True)
    (other,) = torch.autograd.grad(adversarial, layer.weight)
    assert other.norm().item() == pytest.approx(0.5 * one.norm().item(), rel=1e-4)


def test_a_frozen_module_gets_no_gradient() -> None:
    module, x = nn.Linear(2, 1), torch.ones(1, 2, requires_grad=True)
    with frozen(module):
        loss = module(x).sum()
    loss.backward()
    assert module.weight.grad is None and x.grad is not None
    assert all(p.requires_grad for p in module.parameters())
    with frozen(None):
        pass
