"""The residual diffusion MLP: what the discrete tokens of the last scale cannot express.

In: the condition of each token and noise. Out: the residual of each token's latent. Source: HART section 3.3,
MAR (Li et al. 2024) for the network, iDDPM (Nichol and Dhariwal 2021) for schedule and learned variance.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hart_edge.reference.config import DIFFUSION_STEPS, RESIDUAL_SCALE, TransformerConfig
from hart_edge.reference.sampling import guide
from hart_edge.reference.transformer import StepEmbedding

LAYER_NORM_EPS = 1e-6
MAX_BETA = 0.999
COLUMNS = 7  # constants of a denoising step, see ResidualMLP.steps


@dataclass(frozen=True)
class Schedule:
    """Constants of a spaced diffusion process, float64, each as long as timesteps (ascending)."""

    timesteps: tuple[int, ...]
    log_betas: tuple[float, ...]
    log_variance: tuple[float, ...]  # of the posterior, clipped
    x0_from_x: tuple[float, ...]
    x0_from_epsilon: tuple[float, ...]
    mean_from_x0: tuple[float, ...]
    mean_from_x: tuple[float, ...]


def spaced_timesteps(count: int) -> tuple[int, ...]:
    """`count` steps evenly spaced over 0..999 including both ends, rounded (half to even)."""
    if count == 1:
        return (0,)
    stride = (DIFFUSION_STEPS - 1) / (count - 1)
    positions = itertools.accumulate([0.0] + [stride] * (count - 1))  # summed as published: ties round with its error
    return tuple(round(position) for position in positions)


def make_schedule(count: int) -> Schedule:
    """The 1000-step cosine process, thinned to `count` steps with betas recomputed from the kept products."""

    def alpha_bar(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    products, product = [], 1.0
    for i in range(DIFFUSION_STEPS):
        ratio = alpha_bar((i + 1) / DIFFUSION_STEPS) / alpha_bar(i / DIFFUSION_STEPS)
        product *= 1 - min(1 - ratio, MAX_BETA)
        products.append(product)
    timesteps = spaced_timesteps(count)
    kept = np.array([products[t] for t in timesteps])
    previous = np.concatenate([[1.0], kept[:-1]])
    betas = 1 - kept / previous
    variance = betas * (1 - previous) / (1 - kept)
    variance[0] = variance[1] if count > 1 else betas[0]  # step 0 adds no noise; its logarithm must still be finite
    columns = (
        np.log(betas),
        np.log(variance),
        1 / np.sqrt(kept),
        np.sqrt(1 / kept - 1),
        betas * np.sqrt(previous) / (1 - kept),
        (1 - previous) * np.sqrt(1 - betas) / (1 - kept),
    )
    return Schedule(timesteps, *(tuple(column.tolist()) for column in columns))


class ModulatedBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.modulation = nn.Linear(width, 3 * width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(F.silu(y)).chunk(3, -1)
        return x + gate * self.mlp(self.norm(x) * (1 + scale) + shift)


class FinalLayer(nn.Module):
    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.modulation = nn.Linear(width, 2 * width)
        self.linear = nn.Linear(width, out)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        shift, scale = self.modulation(F.silu(y)).chunk(2, -1)
        normed = F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)
        return self.linear(normed * (1 + scale) + shift)


class ResidualMLP(nn.Module):
    """Z latent channels, C condition channels."""

    def __init__(self, config: TransformerConfig, z_channels: int) -> None:
        super().__init__()
        width = config.diff_width
        self.time_embed = StepEmbedding(width)
        self.cond_embed = nn.Linear(config.embed_dim, width)
        self.input_proj = nn.Linear(z_channels, width)
        blocks = nn.ModuleList(ModulatedBlock(width) for _ in range(config.diff_depth))
        self.blocks = cast("Sequence[ModulatedBlock]", blocks)
        self.final = FinalLayer(width, 2 * z_channels)
        self.schedule = make_schedule(config.num_sampling_steps)

    def forward(self, x: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """x: (n, Z); step: (n,) original step numbers; condition: (n, C) -> (n, 2Z), epsilon then variance"""
        return self.denoise(x, self.time_embed(step) + self.cond_embed(condition))

    def denoise(self, x: Tensor, y: Tensor) -> Tensor:
        """x: (n, Z); y: (n, width), step and condition embedded -> (n, 2Z)"""
        x = self.input_proj(x)
        for block in self.blocks:
            x = block(x, y)
        return self.final(x, y)

    def steps(self, count: int) -> tuple[Tensor, Tensor]:
        """What denoising steps are given, in the order of use: embeddings (N, width), constants (N, COLUMNS) float32.

        count: N. The constants of a step are the schedule's but for its timestep, in their
        order as run() takes them, and whether noise is added, 1 or 0.
        """
        table = self.schedule if count == len(self.schedule.timesteps) else make_schedule(count)
        device = self.input_proj.weight.device
        noisy = [float(i > 0) for i in range(len(table.timesteps))]  # the last step adds none
        columns = (
            table.x0_from_x,
            table.x0_from_epsilon,
            table.mean_from_x0,
            table.mean_from_x,
            table.log_betas,
            table.log_variance,
            noisy,
        )
        constants = torch.tensor(columns, device=device).T.flip(0).contiguous()
        return self.time_embed(torch.tensor(table.timesteps, device=device)).flip(0), constants

    def sample(self, condition: Tensor, noise: list[Tensor], strength: Tensor | float, *, both: bool = False) -> Tensor:
        """Denoise from noise[0] with guidance, in as many steps as there is further noise. n tokens of all images.

        condition: (2n, C), conditional branch first, or (n, C) of that alone; noise[0]: (n, Z), the start; noise[1..N]:
        noise of each step in order, (n, Z), or (2n, Z) with both=True; strength: guidance. Returns the residual of the
        conditional branch (n, Z), or of both branches (2n, Z). Both branches are fed the conditional branch's x, so the
        other branch never reaches the result; it is computed only to be compared with the golden record.
        """
        x = noise[0].repeat(2, 1) if both else noise[0]
        embeddings, constants = self.steps(len(noise) - 1)
        return (
            self.run(x, self.cond_embed(condition), embeddings, constants, noise[1:], strength, both) * RESIDUAL_SCALE
        )

    def run(
        self,
        x: Tensor,
        condition: Tensor,
        embeddings: Tensor,
        constants: Tensor,
        noise: Sequence[Tensor],
        strength: Tensor | float,
        both: bool = False,
    ) -> Tensor:
        """Some denoising steps: x, (n, Z) or (2n, Z) with both, as it is behind the last of them.

        condition: embedded, (2n, width) or (n, width); embeddings, constants: of these steps, by steps(); noise,
        strength: as in sample().
        """
        n = x.shape[0] // 2 if both else x.shape[0]
        for step, row, draw in zip(embeddings.unbind(0), constants.unbind(0), noise, strict=True):
            x0_from_x, x0_from_epsilon, mean_from_x0, mean_from_x, log_beta, log_variance, noisy = row.unbind(0)
            own = x[:n]
            nothing = own[:1, :1] - own[:1, :1]  # 0, and of this step: else engines compute all modulations first
            branches = torch.cat([own, own])[: condition.shape[0]]
            out = self.denoise(branches, step + condition + nothing)
            epsilon, variance = out.chunk(2, -1)  # (2n, Z) or (n, Z) each
            epsilon = guide(epsilon[:n], epsilon[condition.shape[0] - n :], strength)
            if both:
                epsilon = epsilon.repeat(2, 1)
            else:
                variance = variance[:n]
            x0 = (x0_from_x * x - x0_from_epsilon * epsilon).clamp(-1, 1)
            x = mean_from_x0 * x0 + mean_from_x * x
            fraction = (variance + 1) / 2
            log_variance = fraction * log_beta + (1 - fraction) * log_variance
            x = x + noisy * (0.5 * log_variance).exp() * draw
        return x
