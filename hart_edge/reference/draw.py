"""Seeds in, latents or pictures out: the reference with the runtime's own noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hart_edge.bundle.settings import Settings
from hart_edge.reference.hart import HART
from hart_edge.reference.noise import residual_normal, token_uniform


def draw_latent(
    model: HART, context: Tensor, mask: Tensor, seeds: Sequence[int], settings: Settings | None = None
) -> Tensor:
    """f_hat (B, Z, P, P) for the decoder. context: (B, T, D) float32; mask: (B, T) bool; seeds: B; settings: None for
    the published ones."""
    last, vocab_size = len(model.patch_nums) - 1, model.tokenizer_config.vocab_size
    steps, tokens, z = model.config.num_sampling_steps + 1, model.patch_nums[-1] ** 2, model.tokenizer_config.z_channels
    noise = residual_normal(seeds, last, steps, tokens, z)  # (B, N + 1, n, Z)

    def uniform(scale: int, shape: tuple[int, ...]) -> Tensor:
        return token_uniform(seeds, scale, shape[1], vocab_size)

    residual_noise = list(noise.transpose(0, 1).flatten(1, 2))
    *_, result = model.scales(context, mask, uniform, residual_noise, settings or Settings())
    return result.f_hat


@torch.no_grad()
def draw_pictures(
    model: HART, context: Tensor, mask: Tensor, seeds: Sequence[int], settings: Settings | None = None
) -> NDArray[np.uint8]:
    """A picture for each seed: (B, 16P, 16P, 3), with 0 to 255 for 0 to 1. The arguments are those of draw_latent."""
    pictures = (model.decode(draw_latent(model, context, mask, seeds, settings)) * 255).round().to(torch.uint8)
    return pictures.permute(0, 2, 3, 1).numpy()
