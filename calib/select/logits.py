"""How far logits are from the reference's: agreement, cosine, largest difference and Kullback-Leibler divergence.

In: logits of the same tokens, expected and found. Out: a LogitError, whose sums can be added up over calls.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class LogitError:
    """Of some tokens: how many, how many with the same likeliest code, and sums over them; largest is a maximum."""

    tokens: int
    same: int
    cosine: float
    largest: float
    kl: float


def compare_logits(expected: Tensor, found: Tensor) -> LogitError:
    """expected, found: (B, n, V). KL is that of the found distribution from the expected one, in nats."""
    expected, found = expected.double().flatten(0, 1), found.double().flatten(0, 1)  # (B * n, V)
    cosine = torch.cosine_similarity(expected, found, dim=-1)
    own, other = expected.log_softmax(-1), found.log_softmax(-1)
    return LogitError(
        tokens=len(expected),
        same=int((expected.argmax(-1) == found.argmax(-1)).sum()),
        cosine=float(cosine.sum()),
        largest=float((expected - found).abs().max()),
        kl=float((own.exp() * (own - other)).sum()),
    )


def add_errors(errors: Sequence[LogitError]) -> LogitError:
    """The error of the tokens of several calls together."""
    return LogitError(
        tokens=sum(each.tokens for each in errors),
        same=sum(each.same for each in errors),
        cosine=sum(each.cosine for each in errors),
        largest=max(each.largest for each in errors),
        kl=sum(each.kl for each in errors),
    )


def mean_kl(errors: Sequence[LogitError]) -> float:
    """In nats: the mean over scales, each of which counts the same however many tokens it has."""
    return float(np.mean([scale.kl / scale.tokens for scale in errors]))
