"""Frechet distance between two sets of pictures, by features of the judge or of a user's Inception weights.

In: features (N, F) of both sets. Out: ||mean - mean'||^2 + tr(C + C' - 2 (C C')^(1/2)), computed by torchmetrics.
Source: Heusel et al. 2017.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from hart_edge.errors import HartEdgeError, InputError
from hart_edge.evaluation.evaluator import BATCH
from hart_edge.reference.weight_files import read_tensors

INCEPTION_FEATURES = 2048
WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"

Features = Callable[[Tensor], Tensor]  # (N, 3, H, H) uint8 -> (N, F)


@dataclass(frozen=True)
class Inception:
    """The usual FID's network with a user's weights. sha256: of the file."""

    features: Features
    sha256: str


class Known(nn.Module):
    """Lets torchmetrics' FrechetInceptionDistance take features that are known already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Tensor, found: Tensor) -> float:
    """real, found: (N, F) and (M, F), at least two rows each; 0 where mean and covariance agree."""
    metric = FrechetInceptionDistance(Known(real.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(found.double(), real=False)
    return float(metric.compute())


def open_inception(file: Path, metric_of: Callable[..., Any] = FrechetInceptionDistance) -> Inception:
    """The network of the usual FID with the weights in `file`, as torch-fidelity publishes them; nothing is downloaded.

    metric_of: builds torchmetrics' metric around that network. Raises InputError where the file is not that,
    HartEdgeError where torch-fidelity is missing.
    """
    if not file.is_file():
        raise InputError(
            f"--inception {file}: no such file; expected {WEIGHTS} of torch-fidelity, which you have to bring yourself"
        )
    read_tensors(file)  # refuses a file that holds more than tensors: torch-fidelity would run what is in it
    try:
        metric = metric_of(INCEPTION_FEATURES, feature_extractor_weights_path=str(file))
    except ModuleNotFoundError as error:
        raise HartEdgeError(
            f"--inception needs torch-fidelity ({error.name or 'which is not installed'}); "
            "pip install 'hart-edge[inception]', or leave --inception out"
        ) from error
    except (RuntimeError, KeyError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"--inception {file}: expected the weights {WEIGHTS} of torch-fidelity, found others ({reason})"
        ) from error

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        return torch.cat([metric.inception(part) for part in images.split(BATCH)])

    return Inception(features, hashlib.sha256(file.read_bytes()).hexdigest())
