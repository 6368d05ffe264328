"""The scale-wise transformer: context tokens and latents of a scale in, hidden states and logits out.

Second link of the chain. It holds no loop and no randomness: hart.py calls it once per scale with the KV cache,
export/ traces the same methods. Source: HART section 3.2, VAR section 3; quirks from the golden records.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hart_edge.reference.config import TransformerConfig

FREQUENCIES = 256  # width of the sine/cosine embedding of a step or level
ROPE_BASE = 10000.0
MAX_LOG_SCALE = math.log(100)

Cache = list[tuple[Tensor, Tensor]]
Kept = TypeVar("Kept")  # what an attention keeps of its tokens for later scales


class RMSNorm(nn.Module):
    """Root mean square normalisation over the last axis, computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


class StepEmbedding(nn.Module):
    """A step number as a vector: 128 cosines, 128 sines, then a two-layer MLP."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, step: Tensor) -> Tensor:
        """step: (n,) any number type -> (n, dim)"""
        half = FREQUENCIES // 2
        k = torch.arange(half, dtype=torch.float32, device=step.device)
        angle = step.float()[:, None] * torch.exp(-math.log(10000) * k / half)
        return self.mlp(torch.cat([angle.cos(), angle.sin()], -1))


class Attention(nn.Module):
    """Multi-head attention with optional L2-normalised queries and keys, and a cache of earlier scales."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.num_heads, self.head_dim, self.l2_norm = config.num_heads, config.head_dim, config.attn_l2_norm
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)
        if self.l2_norm:
            self.log_scale = nn.Parameter(torch.full((1, self.num_heads, 1, 1), math.log(4)))
        self.attend = attend  # for_autocast() of training puts another in its place

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, past: tuple[Tensor, Tensor] | None, mask: Tensor | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x: (B, n, C); cos, sin: (B, n, d); past: keys and values (B, H, N, d); mask: (n, N + n), True attends."""
        q, k, v = self.project(x, cos, sin)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        return self.join(self.attend(q, k, v, mask), x.shape), (k, v)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, n, C); cos, sin: (B, n, d) -> queries, keys and values (B, H, n, d), scaled and rotated"""
        batch, n, _ = x.shape
        bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
        qkv = F.linear(x, self.qkv.weight, bias)
        # (B, H, n, d) each
        q, k, v = (part.view(batch, n, self.num_heads, self.head_dim).transpose(1, 2) for part in qkv.chunk(3, -1))
        if self.l2_norm:
            q = normalize(q) * self.log_scale.clamp(max=MAX_LOG_SCALE).exp()
            k = normalize(k)
        else:
            q = q * (0.25 / math.sqrt(self.head_dim))
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def join(self, heads: Tensor, shape: torch.Size) -> Tensor:
        """What every head found, (B, H, n, d) -> (B, n, C), which is `shape`"""
        return self.proj(heads.transpose(1, 2).reshape(shape))


class GatedMLP(nn.Module):
    """down(SiLU(gate(x)) * up(x)), written with an explicit sigmoid because ONNX Runtime has no Swish kernel."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(x)
        return self.down(gate * torch.sigmoid(gate) * self.up(x))


class Block(nn.Module):
    """Attention and MLP behind one shared RMSNorm, optionally modulated by the pooled context."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.norm = RMSNorm(dim, config.norm_eps)  # one weight for both halves of the block
        self.attn = Attention(config)
        self.mlp = GatedMLP(dim, config.mlp_hidden)
        if not config.disable_aln:
            self.modulation = nn.Linear(dim, 6 * dim)
        elif config.shared_aln:
            self.scale_shift_table = nn.Parameter(torch.zeros(6, dim))

    def modulate_by(self, pooled: Tensor) -> Tensor:
        """pooled context (B, C) -> gamma1, gamma2, scale1, scale2, shift1, shift2 as (B, 6, C)"""
        if hasattr(self, "modulation"):
            return self.modulation(F.silu(pooled)).view(pooled.shape[0], 6, -1)
        return self.scale_shift_table + pooled[:, None]

    def forward(
        self, x: Tensor, modulation: Tensor | None, attention: Callable[[Tensor], tuple[Tensor, Kept]]
    ) -> tuple[Tensor, Kept]:
        """x: (B, n, C); modulation: (B, 6, C); attention: self.attn, given all but its x."""
        if modulation is None:
            attended, present = attention(self.norm(x))
            x = x + attended
            return x + self.mlp(self.norm(x)), present
        gamma1, gamma2, scale1, scale2, shift1, shift2 = modulation.split(1, 1)  # (B, 1, C) each
        attended, present = attention(self.norm(x) * (1 + scale1) + shift1)
        x = x + gamma1 * attended
        return x + gamma2 * self.mlp(self.norm(x) * (1 + scale2) + shift2), present


class HeadNorm(nn.Module):
    """RMSNorm in front of the head, scaled and shifted by the max-pooled context."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = RMSNorm(config.embed_dim, config.norm_eps)
        self.modulation = nn.Linear(config.embed_dim, 2 * config.embed_dim)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x: (B, n, C); modulation: (B, 2, C), scale then shift"""
        scale, shift = modulation.split(1, 1)  # (B, 1, C) each
        return self.norm(x) * (1 + scale) + shift


class Transformer(nn.Module):
    """All of llm/ but the residual MLP. V codes, C channels, T context tokens, d channels a head."""

    def __init__(self, config: TransformerConfig, vocab_size: int, z_channels: int) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.context_norm = RMSNorm(config.context_dim, config.norm_eps) if config.use_context_norm else nn.Identity()
        self.context_embed = nn.Linear(config.context_dim, dim)
        self.word_embed = nn.Linear(z_channels, dim)
        scales = len(config.patch_nums)
        self.level_embed = StepEmbedding(dim) if config.use_timestep_embed else nn.Embedding(scales, dim)
        self.blocks = cast("Sequence[Block]", nn.ModuleList(Block(config) for _ in range(config.depth)))
        self.head_norm = HeadNorm(config)
        self.head = nn.Linear(dim, vocab_size)
        self.decoder_norm = RMSNorm(dim, config.norm_eps)

    def embed_context(self, context: Tensor) -> Tensor:
        """context: (B, T, context_dim) float32 -> context tokens (B, T, C), without the level embedding"""
        return self.context_embed(self.context_norm(context))

    def level(self, scale: int) -> Tensor:
        """The level embedding of a scale: (C,)"""
        return self.level_embed(torch.tensor([scale], device=self.head.weight.device))[0]

    def modulation(self, context_tokens: Tensor, mask: Tensor) -> Tensor | None:
        """Modulation of every block from the context: (B, depth * 6, C), or None where blocks have none.

        context_tokens: (B, T, C) without the level embedding; mask: (B, T) bool, True for prompt tokens.
        """
        if not self.config.modulated:
            return None
        average = self.config.disable_aln or self.config.sep_aln_pooling_mode == "avg"
        if average:
            weight = mask.to(context_tokens.dtype)[..., None]
            pooled = (context_tokens * weight).sum(1) / weight.sum(1).clamp(min=1)
        else:
            pooled = context_tokens.amax(1)
        return torch.cat([block.modulate_by(pooled) for block in self.blocks], 1)

    def head_modulation(self, context_tokens: Tensor) -> Tensor:
        """context_tokens: (B, T, C) -> (B, 2, C), scale then shift"""
        pooled = F.silu(context_tokens.amax(1))
        return self.head_norm.modulation(pooled).view(pooled.shape[0], 2, -1)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        modulation: Tensor | None = None,
        past: Cache | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """All blocks over the tokens of one scale (or, with a mask, of all scales at once).

        x: (B, n, C); cos, sin: (B, n, d); modulation: (B, depth * 6, C); past: per block keys and values
        (B, H, N, d); mask: (n, N + n) bool. Returns hidden states (B, n, C) and the cache with N + n entries.
        """

        present = []
        for i, block in enumerate(self.blocks):
            own = None if modulation is None else modulation.narrow(1, 6 * i, 6)
            cached = None if past is None else past[i]
            x, entry = block(x, own, partial(block.attn, cos=cos, sin=sin, past=cached, mask=mask))
            present.append(entry)
        return x, present

    def logits(self, hidden: Tensor, head_modulation: Tensor) -> Tensor:
        """hidden: (B, n, C); head_modulation: (B, 2, C) -> (B, n, V)"""
        return self.head(self.head_norm(hidden, head_modulation))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """softmax(q k^T) v -> (B, H, n, d), by torch's fused kernel: at 1024 pixels scores would take 3.8 GB, twice.

    q: (B, H, n, d); k, v: (B, H, N + n, d); mask: (n, N + n), True attends.
    """
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)


def normalize(x: Tensor) -> Tensor:
    """x over its L2 norm along the last axis"""
    return x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, "rotate half": channel i is paired with i + d/2. x: (B, H, n, d); cos, sin: (B, n, d)"""
    first, second = x.chunk(2, -1)
    return x * cos.unsqueeze(1) + torch.cat([-second, first], -1) * sin.unsqueeze(1)


def context_rotary(position_ids: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """position_ids: (B, T) int64 -> cosines and sines (B, T, d) of the context tokens' angles"""
    k = torch.arange(0, head_dim, 2, dtype=torch.float32, device=position_ids.device)
    angle = position_ids.float()[..., None] * ROPE_BASE ** (-k / head_dim)  # (B, T, d/2)
    angle = torch.cat([angle, angle], -1)
    return angle.cos(), angle.sin()


def visual_rotary(coordinates: Tensor, last_position: Tensor, head_dim: int) -> tuple[Tensor, Tensor]:
    """Angles of a scale's tokens: row's d/2 first, then column's, so that "rotate half" pairs a row angle with a
    column angle; that is how the published weights were trained.

    coordinates: (n, 2) float32, (row, column) * P / p_s; last_position: (B, 1) float32, the last context position id.
    Returns cosines and sines (B, n, d).
    """
    k = torch.arange(0, head_dim, 4, dtype=torch.float32, device=coordinates.device)
    position = coordinates[None] + last_position[..., None]  # (B, n, 2)
    angle = position[..., None] * ROPE_BASE ** (-k / head_dim)  # (B, n, 2, d/4)
    angle = torch.cat([angle, angle], -1).flatten(2)  # (B, n, d)
    return angle.cos(), angle.sin()


def scale_coordinates(side: int, final_side: int) -> Tensor:
    """(row, column) of a scale's tokens in units of the last scale's grid: (side * side, 2) float32"""
    ticks = torch.arange(side, dtype=torch.float32) / side * final_side
    return torch.stack(torch.meshgrid(ticks, ticks, indexing="ij"), -1).view(-1, 2)
