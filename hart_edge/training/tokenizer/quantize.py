"""Quantisation while training: the arithmetic of hart_edge/reference/quantizer.py, with its loss and its gradient.

Source: docs/arithmetic.md, "Tokenizer"; HART section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hart_edge.reference.quantizer import Quantizer


@dataclass(frozen=True)
class Quantized:
    """indices, tokens: per scale, (B, p_s * p_s) and (B, p_s * p_s, Z), what was quantised at that scale."""

    indices: list[Tensor]
    tokens: list[Tensor]
    f_hat: Tensor  # (B, Z, P, P)
    loss: Tensor


def quantize(quantizer: Quantizer, latent: Tensor, beta: float) -> Quantized:
    """Quantise a latent (B, Z, P, P) scale by scale, phi at the last scale too (the stand-alone discrete path).

    loss: mean over the scales of ||f_hat - sg(f)||^2, which moves codes and phi, and beta ||sg(f_hat) - f||^2, which
    moves the encoder. The choice of codes has no gradient.
    """
    f = latent.detach()
    f_hat = torch.zeros_like(f)
    loss = latent.new_zeros(())
    indices, tokens = [], []
    scales = len(quantizer.patch_nums)
    for scale in range(scales):
        with torch.no_grad():
            tokens.append(quantizer.reduce(f - f_hat, scale))
            indices.append(quantizer.nearest(tokens[-1]))
        f_hat = f_hat + quantizer.expand(quantizer.codebook(indices[-1]), scale)
        loss = loss + F.mse_loss(f_hat, f) + beta * F.mse_loss(f_hat.detach(), latent)
    return Quantized(indices, tokens, f_hat, loss / scales)


def straight_through(latent: Tensor, f_hat: Tensor) -> Tensor:
    """The value of f_hat with the gradient of latent."""
    return latent + (f_hat - latent).detach()
