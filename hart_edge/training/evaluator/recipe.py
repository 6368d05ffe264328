"""The evaluator while it is trained: its recipe, how its pictures vary, and its loss.

In: unit vectors of pictures and captions. Out: the symmetric InfoNCE of CLIP (Radford et al. 2021).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hart_edge.evaluation.evaluator import EvaluatorConfig
from hart_edge.training.captions import TextRecipe
from hart_edge.training.recipe import Optimisation, check


@dataclass(frozen=True)
class EvaluatorRecipe:
    """An evaluator's training.

    mirror: how probable it is that a picture is seen in the mirror, where its captions allow it; shift: by how many
    pixels a picture is moved at most, each way, its border repeated.
    """

    optimisation: Optimisation
    evaluator: EvaluatorConfig = field(default_factory=EvaluatorConfig)
    text: TextRecipe = field(default_factory=lambda: TextRecipe(depth=2, num_heads=4, hidden=256))
    mirror: float = 0.5
    shift: int = 8

    def __post_init__(self) -> None:
        check(self, "mirror", "0 to 1", lambda v: 0 <= v <= 1, "recipe")
        check(self, "shift", "0 to below the side", lambda v: 0 <= v < self.evaluator.side, "recipe")
        check(self.optimisation, "batch", "at least 2, since a picture is told from the others of its batch",
              lambda v: v >= 2)  # fmt: skip


HART_EMOJI = EvaluatorRecipe(Optimisation(steps=800, batch=128, learning_rate=1.5e-3, warmup=80, average=0.998))


def moved(images: NDArray[np.uint8], by: NDArray[np.int64]) -> NDArray[np.uint8]:
    """images: (B, H, H, 3); by: (B, 2), rows down and columns right -> the same moved, borders repeated"""
    side = images.shape[1]
    at = np.arange(side)
    rows, columns = (np.clip(at - by[:, axis, None], 0, side - 1) for axis in (0, 1))  # (B, H) each
    return images[np.arange(len(images))[:, None, None], rows[:, :, None], columns[:, None, :]]


def contrastive(pictures: Tensor, captions: Tensor, scale: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """pictures, captions: (B, E) unit vectors; scale: of the logits; ids: (B, T), the captions' tokens.

    Where another picture of the batch has the very same caption, it is no wrong answer and is left out. Returns the
    loss, and the share of captions and pictures that find each other.
    """
    logits = scale * pictures @ captions.T  # (B, B), a row a picture
    same = (ids[:, None] == ids).all(-1)
    same.fill_diagonal_(False)
    logits = logits.masked_fill(same, -torch.inf)
    right = torch.arange(len(logits), device=logits.device)
    loss = (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2
    found = (logits.argmax(1) == right).float().mean() + (logits.argmax(0) == right).float().mean()
    return {"loss": loss, "found": found.detach() / 2}
