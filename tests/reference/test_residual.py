"""The residual MLP: its diffusion process with fewer steps against a plain recomputation, and its sampling loop."""

from __future__ import annotations

import math

import pytest
import torch

from hart_edge.reference.config import RESIDUAL_SCALE, TransformerConfig
from hart_edge.reference.residual import ResidualMLP, make_schedule, spaced_timesteps

Z, C = 6, 16


def make(steps: int, seed: int = 0) -> ResidualMLP:
    config = TransformerConfig((1, 2), C, 1, 2, 3, 5, diff_width=12, diff_depth=2, num_sampling_steps=steps)
    mlp = ResidualMLP(config, Z)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in mlp.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return mlp.requires_grad_(False)


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def full_products() -> list[float]:
    """Cumulative products of 1 - beta over the 1000 cosine steps"""
    products, product = [], 1.0
    for i in range(1000):
        now, then = (math.cos((i + k) / 1000 / 1.008 * math.pi / 2 + 0.008 / 1.008 * math.pi / 2) ** 2 for k in (0, 1))
        product *= 1 - min(1 - then / now, 0.999)
        products.append(product)
    return products


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, (0,)),
        (2, (0, 999)),
        (3, (0, 500, 999)),  # 499.5 rounds to even
        (8, (0, 143, 285, 428, 571, 714, 856, 999)),
        (1000, tuple(range(1000))),
    ],
)
def test_timesteps(count: int, expected: tuple[int, ...]) -> None:
    assert spaced_timesteps(count) == expected == make_schedule(count).timesteps


def test_timesteps_are_summed_as_published() -> None:
    """The rounding error of a running sum, not of a product, decides ties."""
    position, expected = 0.0, []
    for _ in range(21):
        expected.append(round(position))
        position += 999 / 20
    assert list(spaced_timesteps(21)) == expected
    assert any(spaced_timesteps(n) != tuple(round(i * 999 / (n - 1)) for i in range(n)) for n in range(21, 60))


@pytest.mark.parametrize("count", [1, 2, 8, 20, 1000])
def test_schedule(count: int) -> None:
    schedule, products = make_schedule(count), full_products()
    before = 1.0
    for i, t in enumerate(schedule.timesteps):
        bar = products[t]
        alpha = bar / before
        beta = 1 - alpha
        assert schedule.log_betas[i] == pytest.approx(math.log(beta), rel=1e-8)
        assert schedule.x0_from_x[i] == pytest.approx(1 / math.sqrt(bar), rel=1e-8)
        assert schedule.x0_from_epsilon[i] == pytest.approx(math.sqrt((1 - bar) / bar), rel=1e-8)
        assert schedule.mean_from_x0[i] == pytest.approx(math.sqrt(before) * beta / (1 - bar), rel=1e-7)
        assert schedule.mean_from_x[i] == pytest.approx(math.sqrt(alpha) * (1 - before) / (1 - bar), rel=1e-7)
        if i > 0:
            variance = beta * (1 - before) / (1 - bar)
            assert schedule.log_variance[i] == pytest.approx(math.log(variance), rel=1e-7)
        before = bar
    assert schedule.mean_from_x0[0] == pytest.approx(1)  # the last step of denoising ends on x0
    assert schedule.mean_from_x[0] == 0
    assert len(schedule.log_variance) == count
    assert all(map(math.isfinite, schedule.log_variance))
    if count > 1:
        assert schedule.log_variance[0] == schedule.log_variance[1]


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_both_branches_begin_with_the_same_noise(steps: int) -> None:
    mlp, n = make(steps), 5
    condition, start = draw(2 * n, C), draw(n, Z, seed=2)
    noise = [draw(2 * n, Z, seed=3 + i) for i in range(steps)]
    both = mlp.sample(condition, [start, *noise], 2.5, both=True)
    one = mlp.sample(condition, [start, *(part[:n] for part in noise)], 2.5)
    assert both.shape == (2 * n, Z)
    torch.testing.assert_close(both[:n], one, atol=1e-5, rtol=0)
    if steps > 1:  # the other branch has its own variance and noise
        assert (both[n:] - one).abs().max() > 0.01


def test_one_step_is_the_clipped_x0() -> None:
    mlp, n = make(1), 7
    condition, start = draw(2 * n, C), draw(n, Z, seed=2)
    out = mlp(torch.cat([start, start]), torch.zeros(2 * n), condition)[:, :Z]
    epsilon = 3 * out[:n] - 2 * out[n:]
    bar = full_products()[0]
    x0 = ((start - math.sqrt(1 - bar) * epsilon) / math.sqrt(bar)).clamp(-1, 1)
    torch.testing.assert_close(mlp.sample(condition, [start, start], 2.0), RESIDUAL_SCALE * x0, atol=1e-5, rtol=0)


def test_the_result_is_bounded_and_the_last_noise_unused() -> None:
    mlp, n = make(8), 20
    condition, noise = draw(2 * n, C), [draw(n, Z, seed=i) for i in range(9)]
    found = mlp.sample(condition, noise, 4.0)
    assert found.abs().max() <= 0.6 * (1 + 1e-6)  # x0 is clipped to [-1, 1]
    assert found.std() > 0.1
    assert torch.equal(found, mlp.sample(condition, [*noise[:8], noise[8] + 100], 4.0))
    assert not torch.equal(found, mlp.sample(condition, [*noise[:7], noise[7] + 1, noise[8]], 4.0))


def test_without_guidance_the_unconditional_branch_has_no_effect() -> None:
    mlp, n = make(4), 3
    condition, noise = draw(2 * n, C), [draw(n, Z, seed=i) for i in range(5)]
    other = torch.cat([condition[:n], draw(n, C, seed=9)])
    assert torch.equal(mlp.sample(condition, noise, 0.0), mlp.sample(other, noise, 0.0))
    assert (mlp.sample(condition, noise, 1.0) - mlp.sample(other, noise, 1.0)).abs().max() > 0.01


def test_tokens_are_independent() -> None:
    mlp = make(4)
    x, step, condition = draw(5, Z), torch.tensor([0, 3, 500, 999, 7]), draw(5, C, seed=4)
    whole = mlp(x, step, condition)
    assert whole.shape == (5, 2 * Z)
    for i in range(5):
        alone = mlp(x[i : i + 1], step[i : i + 1], condition[i : i + 1])
        torch.testing.assert_close(whole[i : i + 1], alone, atol=1e-5, rtol=0)
