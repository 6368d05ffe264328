"""The unconditional branch of scale 0, which depends on no prompt: computed once, here, and kept as one key.

In: the reference model. Out: what ContextGraph hands on as constants, and the attention of TransformerGraph, whose two
branches have caches of their own. This branch's T context tokens are all alike (zero context, position 0). Attention
over equal keys returns their value, so one token stands for all while there are no others; later, T equal keys in a
softmax are one key with log T added to its score. Both are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hart_edge.reference.hart import HART
from hart_edge.reference.transformer import Attention, context_rotary


@dataclass(frozen=True)
class UnconditionalBranch:
    """hidden: (1, 1, C); cache: per block key and value (1, H, 1, d); head_modulation: (1, 2, C); modulation:
    (1, depth * 6, C), or None where blocks have none. All float32."""

    hidden: Tensor
    cache: tuple[tuple[Tensor, Tensor], ...]
    head_modulation: Tensor
    modulation: Tensor | None


@torch.no_grad()
def compute_unconditional_branch(model: HART) -> UnconditionalBranch:
    """Scale 0 of the unconditional branch, of one of its T tokens."""
    transformer, config = model.transformer, model.config
    tokens = transformer.embed_context(torch.zeros(1, 1, config.context_dim))  # (1, 1, C)
    modulation = transformer.modulation(tokens, torch.ones(1, 1, dtype=torch.bool))
    cos, sin = context_rotary(torch.zeros(1, 1, dtype=torch.long), config.head_dim)
    hidden, cache = transformer(tokens + transformer.level(0), cos, sin, modulation)
    return UnconditionalBranch(hidden, tuple(cache), transformer.head_modulation(tokens), modulation)


def key_bias(count: int, context_tokens: int) -> Tensor:
    """What is added to the scores of `count` keys of which the first stands for all context tokens: (count,)"""
    return F.pad(torch.tensor([math.log(context_tokens)]), (0, count - 1))


def attend_branches(
    attention: Attention,
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    past: Sequence[Tensor],
    images: int,
    null_bias: Tensor,
    *,
    fused: bool = False,
) -> tuple[Tensor, list[Tensor]]:
    """Attention of both branches: one projection, and keys and values of their own.

    x: (B + U, n, C), cos, sin: (B + U, n, d), conditional branch first; past: keys and values (N, B, H, d) of that one,
    then (M, U, H, d) of the other; images: B; null_bias: (M + n,); fused: trace ONNX Runtime's kernel. Returns
    (B + U, n, C), and the keys and values that each of the four grows by, (n, B, H, d) and (n, U, H, d).
    """
    projected = attention.project(x, cos, sin)
    q, k, v = (part[:images] for part in projected)
    null_q, null_k, null_v = (part[images:] for part in projected)
    new = [_own(to_rows(part)) for part in (k, v, null_k, null_v)]
    k, v, null_k, null_v = (torch.cat(pair).permute(1, 2, 0, 3) for pair in zip(past, new, strict=True))
    heads = attend(q, k, v, fused=fused), attend(null_q, null_k, null_v, null_bias, fused=fused)
    return attention.join(torch.cat(heads), x.shape), new


def _own(rows: Tensor) -> Tensor:
    """The same in memory of its own: values are a view, which holds the whole projection as long as they are kept, of
    every block. Nothing where it is traced."""
    return rows if torch.compiler.is_exporting() else rows.clone()


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, *, fused: bool = False) -> Tensor:
    """softmax(q k^T + bias) v -> (B, H, n, d): torch's fused kernel; where it is traced, operators of ONNX.

    q: (B, H, n, d); k, v: (B, H, N + n, d); bias: (N + n,), of every key's scores; fused: trace one operator that holds
    no scores, in place of two products and a softmax.
    """
    if not torch.compiler.is_exporting():
        mask = None if bias is None else bias[None, None, None]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)
    if fused:
        return _multi_head_attention(q, k, v, bias)
    scores = q @ k.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return scores.softmax(-1) @ v


def _multi_head_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """ONNX Runtime's operator, as its kernel for CPUs takes it that keeps parts of the scores in the processor's cache.

    That kernel adds no bias, and wants keys and values as (B, N, H * d). So a bias becomes one more channel, in which
    every query has 1.
    """
    if bias is not None:
        q = torch.cat([q, torch.ones_like(q[..., :1])], -1)
        k = torch.cat([k, bias[:, None].expand_as(k[..., :1])], -1)
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))  # (B, n, H, d)
    heads = torch.onnx.ops.symbolic(
        "com.microsoft::MultiHeadAttention",
        [part.flatten(2) for part in (q, k, v)],
        {"num_heads": q.shape[2], "scale": 1.0},
        dtype=v.dtype,
        shape=(*q.shape[:2], v.shape[2] * v.shape[3]),
        version=1,
    )
    apart: Tensor = heads.unflatten(-1, v.shape[2:])
    return apart.transpose(1, 2)


def to_rows(part: Tensor) -> Tensor:
    """Keys or values as they are cached: (B, H, n, d) -> (n, B, H, d)"""
    return part.permute(2, 0, 1, 3)
