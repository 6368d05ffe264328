"""The reference's random numbers: the runtime's own generator, so that one seed means one noise everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from hart_edge.runtime.random import Purpose, normal, uniform


def token_uniform(seeds: Sequence[int], scale: int, tokens: int, vocab_size: int) -> Tensor:
    """Uniform numbers of the token choice at a scale: (B, tokens, V) in (0, 1), one seed an image"""
    shape = (tokens, vocab_size)
    return torch.from_numpy(np.stack([uniform(seed, Purpose.TOKENS, scale, 0, shape) for seed in seeds]))


def residual_normal(seeds: Sequence[int], scale: int, steps: int, tokens: int, z_channels: int) -> Tensor:
    """Normal numbers of the residual diffusion: (B, steps, tokens, Z); step 0 is the start"""
    shape = (tokens, z_channels)
    draws = [[normal(seed, Purpose.RESIDUAL, scale, step, shape) for step in range(steps)] for seed in seeds]
    return torch.from_numpy(np.array(draws))
