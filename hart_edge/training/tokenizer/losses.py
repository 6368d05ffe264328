"""What makes a reconstruction good, without a network that would have to be downloaded.

Three terms, each with a reason:
- square: mean squared error, which is what PSNR measures; it places areas and colours.
- absolute: mean absolute error; its gradient does not fade as errors become small, so flat grounds come out flat.
- edges: the absolute error of the differences between neighbours, at full, half and quarter resolution. A blurred edge
  costs the squared error little, since few pixels lie on it, but an eye judges by it. The coarser levels see an edge
  that is off by a few pixels, where the finest has no gradient that would move it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hart_edge.training.recipe import check

EDGE_LEVELS = 3


@dataclass(frozen=True)
class Losses:
    """Weights of the terms. codes: of the vector quantisation loss."""

    square: float = 1.0
    absolute: float = 1.0
    edges: float = 0.5
    codes: float = 0.25

    def __post_init__(self) -> None:
        check(self, "square absolute edges codes", "0 or above", lambda v: v >= 0)


def reconstruction_terms(image: Tensor, target: Tensor) -> dict[str, Tensor]:
    """image, target: (B, 3, H, W) in [-1, 1] -> the three terms, unweighted."""
    error = image - target
    return {"square": error.square().mean(), "absolute": error.abs().mean(), "edges": edge_error(error)}


def edge_error(error: Tensor) -> Tensor:
    """Mean absolute difference between horizontal and vertical neighbours of an error (B, 3, H, W), over the levels.

    Differences are linear, so those of the error are the errors of the differences.
    """
    total = error.new_zeros(())
    for level in range(EDGE_LEVELS):
        if level:
            error = F.avg_pool2d(error, 2)
        rows, columns = error.diff(dim=2), error.diff(dim=3)
        total = total + (rows.abs().mean() + columns.abs().mean()) / 2
    return total / EDGE_LEVELS


def weighted(terms: dict[str, Tensor], weights: Losses) -> Tensor:
    return torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
