"""Absolute positions, used only by the experiment: a learned vector for every token of every scale, as in VAR.

The published model has relative positions (rotary angles from coordinates) and does not use this file.
Source: VAR (Tian et al. 2024); tables are resized as in fine-tuning Vision Transformers (Dosovitskiy et al. 2021).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hart_edge.reference.config import TransformerConfig
from hart_edge.reference.transformer import Cache, Transformer

SPREAD = 0.02  # standard deviation of the initial vectors


class AbsoluteTransformer(Transformer):
    """Visual tokens get a vector added and no rotary angles; context tokens keep theirs. All scales are one pass."""

    def __init__(self, config: TransformerConfig, vocab_size: int, z_channels: int) -> None:
        super().__init__(config, vocab_size, z_channels)
        sides = config.patch_nums[1:]  # scale 0 is the context itself
        self.positions = nn.ParameterList(torch.randn(side * side, config.embed_dim) * SPREAD for side in sides)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        modulation: Tensor | None = None,
        past: Cache | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """As Transformer.forward, on the context and all tokens of all scales at once: x (B, T + sum of p_s^2, C)."""
        table = torch.cat(list(self.positions))
        context = x.shape[1] - len(table)
        if past is not None or context != self.config.context_token:
            raise ValueError(
                f"expected all {self.config.context_token + len(table)} tokens at once, found {x.shape[1]}"
            )
        x = torch.cat([x[:, :context], x[:, context:] + table], 1)
        cos = torch.cat([cos[:, :context], torch.ones_like(cos[:, context:])], 1)
        sin = torch.cat([sin[:, :context], torch.zeros_like(sin[:, context:])], 1)
        return super().forward(x, cos, sin, modulation, None, mask)


def resized_positions(tables: list[Tensor], now: tuple[int, ...]) -> list[Tensor]:
    """Tables (p * p, C) of other scales -> one per side in `now`: that of the same side, or the finest one resized.

    Bicubic interpolation over the grid.
    """
    by_side = {round(len(table) ** 0.5): table for table in tables}
    finest = max(by_side)
    grid = by_side[finest].T.reshape(1, -1, finest, finest)

    def of(side: int) -> Tensor:
        if side in by_side:
            return by_side[side]
        return F.interpolate(grid, (side, side), mode="bicubic", align_corners=False)[0].flatten(1).T.contiguous()

    return [of(side) for side in now]
