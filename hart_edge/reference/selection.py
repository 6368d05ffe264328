"""Which tokens of a scale are worth computing: those whose latent changed most between the two scales before.

In: f_hat as two earlier scales left it, both seen at the scale that is to come. Out: an order of its tokens, and what a
loop does with the first of them. All functions are traceable; they become the `select` graph and parts of others.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hart_edge.reference.transformer import normalize


def change(latent: Tensor, before: Tensor) -> Tensor:
    """How far the directions of two latents are apart, token by token: (B, n, Z) twice -> (B, n)

    The square of the distance of unit vectors, which is 2 (1 - cosine) and keeps its digits where they are close.
    """
    return (normalize(latent) - normalize(before)).square().sum(-1)


def order_of(change: Tensor) -> Tensor:
    """The tokens of each image from the one that changed most to the one that did least: (B, n) -> (B, n) int64"""
    return change.argsort(-1, descending=True)


def sources_of(order: Tensor, kept: int) -> Tensor:
    """For every token of the scale the row of spread() that stands there: (B, n) int64 -> (B, n) int64

    kept: how many of the first tokens in order are computed; every other one takes the row behind theirs.
    """
    return order.argsort(-1).clamp(max=kept)


def rows_at(rows: Tensor, places: Tensor) -> Tensor:
    """Rows of each image by their numbers: (B, n, C) and (B, k) int64, or (1, k) for the same of all -> (B, k, C)"""
    images, count = rows.shape[:2]
    first = torch.arange(images, device=rows.device)[:, None] * count
    return rows.flatten(0, 1).index_select(0, (places + first).flatten()).view(images, places.shape[1], rows.shape[2])


def spread(rows: Tensor, sources: Tensor) -> Tensor:
    """What was computed for k tokens as rows of all, 0 for those left out: (B, k, Z), (B, n) or (1, n) -> (B, n, Z)"""
    return rows_at(F.pad(rows, (0, 0, 0, 1)), sources)
