"""Whether a picture finds its prompt among a hundred: R-precision, as AttnGAN (Xu et al. 2018) has it.

In: unit vectors of pictures and of their prompts. Out: R@1 and R@5, and how far groups of a hundred differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

AMONG = 100
ROUNDS = 5  # permutations that are cut into groups
KS = (1, 5)


@dataclass(frozen=True)
class Retrieval:
    """at: R@k by k, a mean over the groups; spread: its standard deviation over the groups, by k."""

    at: dict[int, float]
    spread: dict[int, float]
    among: int  # prompts a group
    groups: int


def retrieval(pictures: Tensor, prompts: Tensor, seed: int = 0) -> Retrieval:
    """pictures, prompts: (N, E) unit vectors, row i of both belonging together, N at least 2.

    Each of ROUNDS permutations, drawn from the seed, is cut into groups of AMONG, which are disjoint; what is left over
    is in no group of that round. Fewer than AMONG rows make one group. Raises ValueError.
    """
    if pictures.shape != prompts.shape or len(pictures) < 2:
        raise ValueError(f"expected two equal shapes of at least 2 rows, found {pictures.shape} and {prompts.shape}")
    similar = (pictures.double() @ prompts.double().T).cpu()
    groups = groups_of(len(similar), seed)
    found = torch.tensor([[recall(similar[group][:, group], k) for k in KS] for group in groups], dtype=torch.float64)
    spread = found.std(0) if len(groups) > 1 else torch.zeros(len(KS))
    at, around = (dict(zip(KS, values.tolist(), strict=True)) for values in (found.mean(0), spread))
    return Retrieval(at, around, min(AMONG, len(similar)), len(groups))


def groups_of(count: int, seed: int) -> list[NDArray[np.int64]]:
    """The rows of every group."""
    among = min(AMONG, count)
    groups = []
    for number in range(ROUNDS if among < count else 1):
        order = np.random.default_rng((seed, number)).permutation(count)
        groups += np.split(order[: len(order) // among * among], len(order) // among)
    return groups


def recall(similar: Tensor, k: int) -> float:
    """similar: (n, n), a row a picture -> the share of pictures with fewer than k prompts closer than their own."""
    return float((ranks(similar) < k).double().mean())


def ranks(similar: Tensor) -> Tensor:
    """similar: (n, n), a row a picture -> (n,), how many prompts are closer to it than its own.

    A prompt that is exactly as close, as one of the same words is, counts as half a closer one.
    """
    own = similar.diagonal()[:, None]
    return (similar > own).sum(1) + 0.5 * ((similar == own).sum(1) - 1)
