"""A codebook that stays in use: it is placed on data before its first use, and codes that are no longer chosen are
replaced.

A code that is never the nearest has no gradient and would stay unused for ever. Source of the remedy: random restarts
of Jukebox (Dhariwal et al. 2020); drawn in proportion to the squared distance, as k-means++ does (Arthur 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hart_edge.evaluation.reconstruction import counts_of
from hart_edge.reference.quantizer import Quantizer
from hart_edge.training.errors import TrainingError
from hart_edge.training.recipe import check
from hart_edge.training.tokenizer.quantize import quantize

PLACING_ROUNDS = 8


@dataclass(frozen=True)
class CodebookCare:
    """start: the step from which codes are used at all; until then the tokenizer learns the continuous path alone.

    Every `every` steps, a code chosen less often than `dead_below` times the even share is placed anew.
    """

    start: int = 500
    every: int = 25
    dead_below: float = 0.1
    memory: float = 0.98  # decay of the running counts

    def __post_init__(self) -> None:
        check(self, "start", "0 or above", lambda v: v >= 0, "codebook")
        check(self, "every", "at least 1", lambda v: v >= 1, "codebook")
        check(self, "dead_below memory", "0 to below 1", lambda v: 0 <= v < 1, "codebook")


class CodeUse:
    """Running counts of how often each code is chosen: (V,), in units of the even share."""

    def __init__(self, codes: int, memory: float) -> None:
        self.use, self.memory = torch.ones(codes), memory

    def note(self, counts: Tensor) -> None:
        """counts: (V,), of one step over all processes."""
        self.use.lerp_(counts / counts.sum() * len(counts), 1 - self.memory)

    def dead(self, below: float) -> Tensor:
        """Indices of the codes used less than `below` times the even share."""
        return (self.use < below).nonzero()[:, 0]

    def revive(self, codes: Tensor) -> None:
        self.use[codes] = 1.0


@torch.no_grad()
def place(quantizer: Quantizer, latents: Tensor, random: np.random.Generator) -> None:
    """Place every code on data, in place: k-means over what the scales see of the latents (N, Z, P, P).

    What a scale sees depends on the codes of the scales before it, so every round quantises anew. The first round
    sees the latents themselves at every scale. Raises TrainingError where they are not finite.
    """
    if not torch.isfinite(latents).all():
        raise TrainingError(
            "codebook: expected finite latents to place it on, found others: the run has diverged; begin anew with a "
            "lower optimisation.learning_rate"
        )
    codebook = quantizer.codebook.weight
    seen = [quantizer.reduce(latents, scale).flatten(0, 1) for scale in range(len(quantizer.patch_nums))]
    codebook.copy_(drawn(torch.cat(seen), len(codebook), random))
    for _ in range(PLACING_ROUNDS):
        result = quantize(quantizer, latents, beta=0.0)
        tokens = torch.cat([each.flatten(0, 1) for each in result.tokens])
        chosen = torch.cat([each.flatten() for each in result.indices])
        counts = counts_of(result.indices, len(codebook))
        sums = torch.zeros_like(codebook).index_add_(0, chosen, tokens)
        used = counts > 0
        codebook[used] = sums[used] / counts[used, None]
        if not used.all():
            codebook[~used] = drawn(tokens, int((~used).sum()), random, distance_to(quantizer, tokens, chosen))


def distance_to(quantizer: Quantizer, tokens: Tensor, chosen: Tensor) -> Tensor:
    """Squared distance of tokens (n, Z) to the codes (n,) chosen for them: (n,)"""
    return (tokens - quantizer.codebook.weight[chosen]).square().sum(-1)


def drawn(tokens: Tensor, count: int, random: np.random.Generator, weight: Tensor | None = None) -> Tensor:
    """`count` of the tokens (n, Z), in proportion to their weight (n,), with a little noise where they repeat."""
    p = None
    if weight is not None and weight.sum() > 0:
        p = weight.double().cpu().numpy()
        p = p / p.sum()
    at = torch.from_numpy(random.choice(len(tokens), count, replace=True, p=p)).to(tokens.device)
    noise = torch.from_numpy(random.standard_normal((count, tokens.shape[1]), dtype=np.float32)).to(tokens.device)
    return tokens[at] + 0.01 * tokens.std() * noise


@torch.no_grad()
def replace(codebook: Tensor, codes: Tensor, tokens: Tensor, averages: list[Tensor], moments: list[Tensor]) -> None:
    """Put tokens (n, Z) in the rows `codes` of the codebook and its averages, in place.

    Those rows of the optimiser's moments belonged to other codes and become zero.
    """
    for each in (codebook, *averages):
        each[codes] = tokens.to(each.dtype)
    for each in moments:
        each[codes] = 0
