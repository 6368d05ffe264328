"""The loss of the residual diffusion MLP.

In: residuals of the last scale's tokens and what they are conditioned on. Out: a loss a token. Source: HART section
3.3, MAR (Li et al. 2024) for several draws a token, iDDPM (Nichol and Dhariwal 2021) for the learned variance.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from hart_edge.reference.config import DIFFUSION_STEPS
from hart_edge.reference.residual import ResidualMLP, make_schedule


class Diffusion(nn.Module):
    """The full process, whose every step is trained, though few are sampled. Constants: (1000,) float32 each."""

    x_from_x0: Tensor
    x_from_epsilon: Tensor
    mean_from_error: Tensor
    log_betas: Tensor
    log_variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        full = make_schedule(DIFFUSION_STEPS)
        x0_from_x, x0_from_epsilon = np.array(full.x0_from_x), np.array(full.x0_from_epsilon)
        for name, values in (
            ("x_from_x0", 1 / x0_from_x),
            ("x_from_epsilon", x0_from_epsilon / x0_from_x),
            ("mean_from_error", np.array(full.mean_from_x0) * x0_from_epsilon),
            ("log_betas", full.log_betas),
            ("log_variance", full.log_variance),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def noised(self, x0: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """x0, noise: (n, Z); steps: (n,) int64 -> x of those steps (n, Z)"""
        return self.x_from_x0[steps, None] * x0 + self.x_from_epsilon[steps, None] * noise

    def loss(self, out: Tensor, steps: Tensor, noise: Tensor) -> Tensor:
        """out: (n, 2Z) of the network, epsilon then variance -> (n,): squared error of epsilon, plus the bound.

        The bound is the KL divergence, in bits a channel, of the network's step from the true posterior. It teaches
        the variance alone: the network's mean is detached, and differs from the posterior's by mean_from_error times
        the error of epsilon. Step 0 has no posterior; iDDPM takes the likelihood of 8-bit pixels there, which latents
        are not, and sampling draws no noise there, so the clipped posterior of the schedule stands in.
        """
        epsilon, variance = out.chunk(2, -1)
        error = epsilon - noise
        fraction = (variance + 1) / 2
        posterior = self.log_variance[steps, None]
        log_variance = fraction * self.log_betas[steps, None] + (1 - fraction) * posterior
        gap = self.mean_from_error[steps, None] * error.detach()
        kl = log_variance - posterior - 1 + (posterior - log_variance).exp() + gap.square() * (-log_variance).exp()
        return (error.square() + kl / (2 * math.log(2))).mean(-1)


def residual_loss(
    mlp: ResidualMLP, diffusion: Diffusion, target: Tensor, condition: Tensor, steps: Tensor, noise: Tensor
) -> Tensor:
    """target: (n, Z), residuals over RESIDUAL_SCALE; condition: (n, C); steps: (n, M) int64; noise: (n, M, Z).

    Returns the mean over the M draws of each token: (n,) float32.
    """
    draws = steps.shape[1]
    steps, noise = steps.flatten(), noise.flatten(0, 1)  # (n * M, ...)
    x = diffusion.noised(target.repeat_interleave(draws, 0), steps, noise)
    y = mlp.time_embed(steps) + mlp.cond_embed(condition).repeat_interleave(draws, 0)
    return diffusion.loss(mlp.denoise(x, y).float(), steps, noise).view(-1, draws).mean(1)
