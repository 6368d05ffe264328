"""The diffusion loss against a plain scalar computation from the betas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hart_edge.reference.config import TransformerConfig
from hart_edge.reference.residual import ResidualMLP
from hart_edge.training.transformer.residual_loss import Diffusion, residual_loss
from tests.training.transformer.tiny_transformer import filled

C, Z = 10, 4
DIFFUSION = Diffusion()


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def betas() -> list[float]:
    def bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    return [min(1 - bar((i + 1) / 1000) / bar(i / 1000), 0.999) for i in range(1000)]


def plain_loss(out: list[float], x0: list[float], noise: list[float], t: int) -> float:
    """iDDPM's hybrid loss of one token, in float64, from the definition of the two Gaussians."""
    beta = betas()
    product = [math.prod(1 - b for b in beta[: i + 1]) for i in range(max(t, 1) + 1)]
    before = product[t - 1] if t else 1.0

    def posterior_variance(i: int) -> float:
        return beta[i] * (1 - product[i - 1]) / (1 - product[i])

    true_log = math.log(posterior_variance(max(t, 1)))  # that of step 1 where step 0 has none
    total = 0.0
    for channel in range(Z):
        epsilon, v = out[channel], out[Z + channel]
        x = math.sqrt(product[t]) * x0[channel] + math.sqrt(1 - product[t]) * noise[channel]

        def mean(start: float, x: float = x) -> float:
            of_x = math.sqrt(1 - beta[t]) * (1 - before) / (1 - product[t])
            return math.sqrt(before) * beta[t] / (1 - product[t]) * start + of_x * x

        guessed = (x - math.sqrt(1 - product[t]) * epsilon) / math.sqrt(product[t])
        log_variance = (v + 1) / 2 * math.log(beta[t]) + (1 - v) / 2 * true_log
        gap = mean(x0[channel]) - mean(guessed)
        kl = 0.5 * (log_variance - true_log + math.exp(true_log - log_variance) - 1) + 0.5 * gap**2 / math.exp(
            log_variance
        )
        total += (epsilon - noise[channel]) ** 2 + kl / math.log(2)
    return total / Z


@pytest.mark.parametrize("t", [0, 1, 2, 143, 500, 800, 950])
def test_against_a_scalar_computation(t: int) -> None:
    x0, noise = draw(5, Z, seed=2) * 0.5, draw(5, Z, seed=3)
    out = torch.cat([noise + 0.1 * draw(5, Z, seed=4), draw(5, Z, seed=5) * 0.7], 1)
    found = DIFFUSION.loss(out, torch.full((5,), t), noise)
    expected = [plain_loss(*(each[i].tolist() for each in (out, x0, noise)), t) for i in range(5)]
    assert found.tolist() == pytest.approx(expected, rel=2e-3)


def test_noise_is_added_by_the_schedule() -> None:
    x0, noise, steps = draw(4, Z), draw(4, Z, seed=2), torch.tensor([0, 10, 500, 999])
    beta, found = betas(), DIFFUSION.noised(x0, steps, noise)
    for i, t in enumerate(steps.tolist()):
        bar = math.prod(1 - b for b in beta[: t + 1])
        torch.testing.assert_close(found[i], math.sqrt(bar) * x0[i] + math.sqrt(1 - bar) * noise[i], atol=1e-5, rtol=0)


def test_the_variational_bound_trains_only_the_variance() -> None:
    out, noise, steps = draw(6, 2 * Z).requires_grad_(), draw(6, Z, seed=2), torch.tensor([1, 50, 300, 500, 700, 900])
    DIFFUSION.loss(out, steps, noise).sum().backward()
    torch.testing.assert_close(out.grad[:, :Z], 2 * (out[:, :Z] - noise).detach() / Z, atol=1e-6, rtol=0)
    assert (out.grad[:, Z:] != 0).all()


def test_a_perfect_network_has_no_loss() -> None:
    noise = draw(3, Z)
    posterior = torch.cat([noise, torch.full((3, Z), -1.0)], 1)  # fraction 0: the posterior's variance
    assert DIFFUSION.loss(posterior, torch.tensor([3, 400, 900]), noise).abs().max() < 1e-6


def test_the_loss_of_a_token_is_the_mean_over_its_draws() -> None:
    config = TransformerConfig((1, 2), C + 2, 1, 1, 3, 5, diff_width=12, diff_depth=2, num_sampling_steps=2)
    torch.manual_seed(0)
    mlp = filled(ResidualMLP(config, Z)).requires_grad_(False)
    target, condition, noise = draw(5, Z), draw(5, C + 2, seed=2), draw(5, 3, Z, seed=3)
    steps = torch.randint(0, 1000, (5, 3), generator=torch.Generator().manual_seed(4))
    found = residual_loss(mlp, DIFFUSION, target, condition, steps, noise)
    assert found.shape == (5,)
    for i in range(5):
        single = []
        for m in range(3):
            t, e = steps[i, m : m + 1], noise[i, m][None]
            out = mlp(DIFFUSION.noised(target[i][None], t, e), t, condition[i][None])
            single.append(float(DIFFUSION.loss(out, t, e)))
        assert float(found[i]) == pytest.approx(sum(single) / 3, rel=1e-4)
