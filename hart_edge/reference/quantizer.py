"""Codes <-> latent, scale by scale: codebook, bicubic up, phi, area down.

Bicubic up and area down are separable linear maps, so both are written as constant matrices: exact on every engine.
Source: VAR section 3.1, HART section 3.1 (the hybrid tokenizer skips phi at the generator's last scale).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from hart_edge.reference.config import TokenizerConfig


def upsample_matrix(side: int, final_side: int) -> Tensor:
    """Bicubic interpolation (a = -0.75, align_corners off) of side samples to final_side: (final_side, side)"""
    matrix = np.zeros((final_side, side))
    for row in range(final_side):
        position = (row + 0.5) * side / final_side - 0.5
        first = math.floor(position)
        for tap in range(first - 1, first + 3):
            matrix[row, min(max(tap, 0), side - 1)] += cubic_kernel(abs(position - tap))  # edges repeat
    return torch.from_numpy(matrix.astype(np.float32))


def cubic_kernel(distance: float, a: float = -0.75) -> float:
    """Weight of a sample at a distance below 2 (Keys 1981)"""
    if distance <= 1:
        return ((a + 2) * distance - (a + 3)) * distance * distance + 1
    return ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a


def downsample_matrix(side: int, final_side: int) -> Tensor:
    """Area (adaptive average) reduction of final_side samples to side: (side, final_side)"""
    matrix = np.zeros((side, final_side))
    for row in range(side):
        start, stop = row * final_side // side, -(-(row + 1) * final_side // side)
        matrix[row, start:stop] = 1 / (stop - start)
    return torch.from_numpy(matrix.astype(np.float32))


def resize(x: Tensor, matrix: Tensor) -> Tensor:
    """Apply a resize matrix (q, p) to both axes of x (B, Z, p, p) -> (B, Z, q, q)"""
    return matrix @ x @ matrix.T


def to_map(tokens: Tensor, side: int) -> Tensor:
    """(B, side * side, Z) row-major -> (B, Z, side, side)"""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], side, side)


def to_tokens(latent: Tensor) -> Tensor:
    """(B, Z, p, p) -> (B, p * p, Z) row-major"""
    return latent.flatten(2).transpose(1, 2)


class Quantizer(nn.Module):
    """The multi-scale residual quantiser of the tokenizer. V codes of Z channels, P the last scale's side.

    patch_nums: the scales to work at; a generator's own list, which may differ from the one that the tokenizer was
    trained at (by default that one).
    """

    def __init__(self, config: TokenizerConfig, patch_nums: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.patch_nums, self.ratio = patch_nums or config.patch_nums, abs(config.quant_resi)
        z = config.z_channels
        self.codebook = nn.Embedding(config.vocab_size, z)
        convolutions = nn.ModuleList(nn.Conv2d(z, z, 3, padding=1) for _ in range(config.phi_count))
        self.phi = cast("Sequence[nn.Conv2d]", convolutions)

    @property
    def final_side(self) -> int:
        return self.patch_nums[-1]

    def phi_index(self, scale: int) -> int:
        """Which phi belongs to a scale: the one whose tick is nearest to s / (S - 1)."""
        count = len(self.phi)
        margin = 1 / 3 / count if count == 4 else 1 / 2 / count
        ticks = np.linspace(margin, 1 - margin, count)
        return int(np.abs(ticks - scale / (len(self.patch_nums) - 1)).argmin())

    def phi_kernels(self) -> tuple[Tensor, Tensor]:
        """Every phi as one plain convolution, (1 - r) identity + r conv: (K, Z, Z, 3, 3) and (K, Z)"""
        z = self.codebook.embedding_dim
        identity = torch.zeros(z, z, 3, 3)
        identity[range(z), range(z), 1, 1] = 1
        if not self.phi:
            return identity[None], torch.zeros(1, z)
        weight = torch.stack([phi.weight for phi in self.phi])
        bias = torch.stack([phi.bias for phi in self.phi if phi.bias is not None])  # each has one
        return (1 - self.ratio) * identity + self.ratio * weight, self.ratio * bias

    def expand(self, codes: Tensor, scale: int, *, with_phi: bool = True) -> Tensor:
        """What a scale adds to the latent. codes: (B, p_s * p_s, Z) -> (B, Z, P, P)"""
        side = self.patch_nums[scale]
        h = to_map(codes, side)
        if side != self.final_side:
            h = resize(h, upsample_matrix(side, self.final_side).to(h.device))
        if not with_phi or not self.phi:
            return h
        return (1 - self.ratio) * h + self.ratio * self.phi[self.phi_index(scale)](h)

    def reduce(self, latent: Tensor, scale: int) -> Tensor:
        """A latent seen at a scale: (B, Z, P, P) -> (B, p_s * p_s, Z)"""
        side = self.patch_nums[scale]
        if side == self.final_side:
            return to_tokens(latent)
        return to_tokens(resize(latent, downsample_matrix(side, self.final_side).to(latent.device)))

    def nearest(self, tokens: Tensor) -> Tensor:
        """Index of the nearest code in L2: (B, n, Z) -> (B, n) int64"""
        codebook = self.codebook.weight
        distance = codebook.square().sum(-1) - 2 * (tokens @ codebook.T)  # |token|^2 is the same for every code
        return distance.argmin(-1)

    def encode(self, latent: Tensor, *, phi_at_last: bool) -> tuple[list[Tensor], Tensor, Tensor]:
        """Quantise a latent (B, Z, P, P) scale by scale.

        phi_at_last: False for the generator's targets, True for the stand-alone discrete path. Returns indices per
        scale (B, p_s * p_s), f_hat (B, Z, P, P), and the rest before the last scale's codes are taken off
        (B, P * P, Z).
        """
        f_hat, rest = torch.zeros_like(latent), latent
        indices = []
        last = len(self.patch_nums) - 1
        for scale in range(last + 1):
            before_last = rest
            indices.append(self.nearest(self.reduce(rest, scale)))
            h = self.expand(self.codebook(indices[-1]), scale, with_phi=scale < last or phi_at_last)
            f_hat, rest = f_hat + h, rest - h
        return indices, f_hat, to_tokens(before_last)
