"""From guided logits to codes: guidance, top-k, top-p, Gumbel-max sampling and the smooth mode.

All functions are traceable; they become the `tokens` graph. Randomness enters as uniform numbers.
Source: VAR section 3 (top-k, top-p), HART's published sampler (guidance ramp, smooth mode).
"""

from __future__ import annotations

import torch
from torch import Tensor

from hart_edge.bundle.settings import Sampling, published

FEW_CODES_FROM = 7  # the first scale that samples from 300 codes instead of 600


def guidance_ramp(scales: int) -> list[float]:
    """Per scale, the factor on cfg_scale. The last scale reuses the one before it: the weights were tuned with it."""
    ramp = [s / (scales - 1) for s in range(scales)]
    ramp[-1] = ramp[-2]
    return ramp


def default_top_k(scales: int, vocab_size: int) -> list[int]:
    """Per scale, how many codes are kept."""
    return [min(600 if s < FEW_CODES_FROM else 300, vocab_size) for s in range(scales)]


def smooth_temperatures(scales: int) -> list[float]:
    """Per scale, tau of the smooth mode's softmax."""
    return [max(0.27 * (1 - 0.95 * ratio), 0.005) for ratio in guidance_ramp(scales)]


def published_sampling(scales: int, vocab_size: int) -> Sampling:
    """The settings of a checkpoint that says nothing, with the published tables over its scales."""
    return published({
        "top_k": tuple(default_top_k(scales, vocab_size)),
        "guidance_ratio": tuple(guidance_ramp(scales)),
        "temperature": tuple(smooth_temperatures(scales)),
    })  # fmt: skip


def guide(conditional: Tensor, unconditional: Tensor, strength: Tensor | float) -> Tensor:
    """Classifier-free guidance of two branches, (B, ...) each"""
    return (1 + strength) * conditional - strength * unconditional


def keep_likely(logits: Tensor, top_k: Tensor, top_p: Tensor, candidates: int) -> Tensor:
    """Which codes may be drawn: the top_k largest and, of those, the fewest that hold top_p of the probability.

    logits: (B, n, V); top_k: (1,) int64, 1 to candidates; top_p: (1,) float32, above 0, 1 keeps all. Returns
    (B, n, V) bool. Codes tied with the last one kept are kept too, as in the published sampler. `candidates` is
    fixed in the graph (TensorRT's TopK wants less than 3840 of them).
    """
    ordered = logits.topk(candidates, -1).values  # (B, n, candidates), descending
    rank = torch.arange(candidates, device=logits.device)
    probability = ordered.masked_fill(rank >= top_k, -torch.inf).softmax(-1)
    before = probability.cumsum(-1) - probability  # of everything more likely
    kept = (rank < top_k) & ((before < top_p) | (top_p >= 1) | (rank == 0))
    least = ordered.masked_fill(~kept, torch.inf).amin(-1, keepdim=True)
    return logits >= least


def gumbel(uniform: Tensor) -> Tensor:
    """Standard Gumbel numbers from uniform ones in (0, 1)."""
    return -torch.log(-torch.log(uniform))


def choose(
    logits: Tensor,
    uniform: Tensor,
    codebook: Tensor,
    *,
    ratio: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    smooth: Tensor,
    candidates: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one code per token by the Gumbel-max rule, and the latent that stands for it.

    logits: guided, (B, n, V); uniform: (B, n, V) in (0, 1); codebook: (V, Z); ratio, temperature, top_p: (1,)
    float32; top_k: (1,) int64; smooth: (1,) bool; candidates: see keep_likely. Returns indices (B, n) int64,
    codes = codebook[indices] (B, n, Z) and latent (B, n, Z): the codes, or in the smooth mode their mixture. Both
    modes use the same Gumbel numbers, so that the mixture leans towards the code that conditions the residual.
    """
    kept = keep_likely(logits, top_k, top_p, candidates)
    noise = gumbel(uniform)
    indices = (logits + noise).masked_fill(~kept, -torch.inf).argmax(-1)
    codes = codebook[indices]
    mixed = ((logits * (1 + ratio) + noise) / temperature).masked_fill(~kept, -torch.inf).softmax(-1)
    return indices, codes, torch.where(smooth, mixed @ codebook, codes)
