"""The optional adversarial loss: a critic of patches, hinge loss, and a weight that follows the gradients.

Off by default. Sources: PatchGAN (Isola et al. 2017), hinge loss (Lim and Ye 2017), adaptive weight of VQ-GAN (Esser et
al. 2021, equation 7).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hart_edge.training.recipe import check

LARGEST_WEIGHT = 1e4


@dataclass(frozen=True)
class Adversarial:
    """weight: 0 is off. start: the first step with it; the critic begins to learn at the same step."""

    weight: float = 0.0
    start: int = 0
    learning_rate: float = 2e-4
    ch: int = 32
    layers: int = 3

    def __post_init__(self) -> None:
        check(self, "weight start", "0 or above", lambda v: v >= 0)
        check(self, "learning_rate", "above 0", lambda v: v > 0)
        check(self, "ch", "a multiple of 8, at least 8", lambda v: v >= 8 and v % 8 == 0)
        check(self, "layers", "1 to 4", lambda v: 1 <= v <= 4)


class Critic(nn.Module):
    """(B, 3, H, W) in [-1, 1] -> one score a patch (B, 1, h, w): above 0 for real, below for reconstructed"""

    def __init__(self, config: Adversarial) -> None:
        super().__init__()
        widths = [config.ch * min(2**i, 8) for i in range(config.layers + 1)]
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i in range(config.layers):
            stride = 2 if i < config.layers - 1 else 1
            layers += [
                nn.Conv2d(widths[i], widths[i + 1], 4, stride=stride, padding=1),
                nn.GroupNorm(8, widths[i + 1]),  # no dependence on the batch, so processes may share it
                nn.LeakyReLU(0.2),
            ]
        self.net = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


@contextmanager
def frozen(module: nn.Module | None) -> Iterator[None]:
    """What is computed meanwhile gives the module's parameters no gradient."""
    for each in (parameters := [] if module is None else list(module.parameters())):
        each.requires_grad_(False)
    try:
        yield
    finally:
        for each in parameters:
            each.requires_grad_(True)


def critic_loss(real: Tensor, made: Tensor) -> Tensor:
    """Hinge: scores of real pictures above 1, of reconstructed ones below -1."""
    return (F.relu(1 - real).mean() + F.relu(1 + made).mean()) / 2


def adversarial_loss(scores: Tensor, reconstruction: Tensor, last_layer: Tensor, weight: float) -> Tensor:
    """The tokenizer's side: -mean score, weighted so that its gradient at the decoder's last layer is `weight` times
    the reconstruction's.
    """
    loss = -scores.mean()
    (by_reconstruction,) = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)
    (by_critic,) = torch.autograd.grad(loss, last_layer, retain_graph=True)
    ratio = by_reconstruction.norm() / (by_critic.norm() + 1e-6)
    return weight * ratio.clamp(max=LARGEST_WEIGHT).detach() * loss
