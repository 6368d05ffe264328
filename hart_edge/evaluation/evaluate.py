"""All figures of one subject: how well its autoencoder reconstructs pictures, how good the pictures are that it
generates, and how well they match their prompts.

In: a judge, a split's pictures, a subject. Out: figures as dataclasses, with what they were taken of.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hart_edge.data.pictures import Pictures
from hart_edge.evaluation.evaluator import Judge
from hart_edge.evaluation.frechet import Inception, frechet_distance
from hart_edge.evaluation.progress import Progress, log_truncated_prompts, with_progress
from hart_edge.evaluation.reconstruction import Reconstruction, measure, spread
from hart_edge.evaluation.retrieval import Retrieval, retrieval
from hart_edge.evaluation.subjects import Subject
from hart_edge.reference.autoencoder import Autoencoder
from hart_edge.reference.quantizer import Quantizer

BATCH = 32


@dataclass(frozen=True)
class Split:
    """Pictures of a split with the first caption of each as its prompt. fingerprint: of both."""

    name: str
    images: NDArray[np.uint8]  # (N, side, side, 3)
    prompts: tuple[str, ...]
    fingerprint: str

    def tensor(self) -> Tensor:
        """(N, 3, side, side) uint8"""
        return stacked(list(self.images))


@dataclass(frozen=True)
class Distance:
    """Frechet distances between two sets: by the judge's features, and by Inception's where the user has weights."""

    judge: float
    inception: float | None


@dataclass(frozen=True)
class Judged:
    """What the judge says of pictures: how far they are from real ones, and whether they find their prompts."""

    distance: Distance
    retrieval: Retrieval


@dataclass(frozen=True)
class Rebuilt:
    """An autoencoder's figures on a split. What its discrete path leaves is the most that a generator can reach without
    residuals, the continuous one the most with them."""

    figures: Reconstruction
    continuous: Judged
    discrete: Judged


@dataclass(frozen=True)
class Drawn:
    """A subject on the prompts of a split. seconds: a picture, over all."""

    judged: Judged
    pictures: int
    seconds: float


def split_of(name: str, pictures: Pictures, wanted: int | None) -> Split:
    """A split, or `wanted` of its pictures, evenly spaced."""
    return _split(name, pictures, spread(len(pictures), wanted or len(pictures)))


def familiar_split(name: str, pictures: Pictures, wanted: int) -> Split:
    """`wanted` pictures that a model was trained on: the first of as many groups, evenly spaced; without groups evenly
    spaced themselves."""
    firsts = {group: row for row, group in reversed([*enumerate(pictures.groups)])}
    rows = np.array(sorted(firsts.values())) if len(firsts) > 1 else np.arange(len(pictures))
    return _split(name, pictures, rows[spread(len(rows), wanted)])


def _split(name: str, pictures: Pictures, rows: NDArray[np.int64]) -> Split:
    images = np.ascontiguousarray(pictures.images[rows])
    prompts = tuple(pictures.captions[row][0] for row in rows)
    digest = hashlib.sha256(json.dumps([images.shape, prompts]).encode() + images.tobytes())
    return Split(name, images, prompts, digest.hexdigest())


def stacked(images: list[NDArray[np.uint8]]) -> Tensor:
    """Pictures (H, H, 3) -> (N, 3, H, H) uint8"""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


class Evaluation:
    """The judge, and Inception where there is one. The features of a split's real pictures are computed once, and its
    prompts are read once."""

    def __init__(self, judge: Judge, inception: Inception | None = None) -> None:
        self.judge, self.inception = judge, inception
        self.kept: dict[str, tuple[Tensor, Tensor | None]] = {}
        self.prompts: dict[str, Tensor] = {}  # (N, E), by split

    def features(self, what: str, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Features of pictures (N, 3, H, H) uint8: the judge's, and Inception's."""
        own = torch.cat([self.judge.model.features(part) for part in images.split(BATCH)])
        if self.inception is None:
            return own, None
        parts = images.split(BATCH)
        return own, torch.cat(
            [self.inception.features(part) for part in with_progress(f"{what}, Inception", parts, len(parts))]
        )

    def real(self, split: Split) -> tuple[Tensor, Tensor | None]:
        if split.fingerprint not in self.kept:
            self.kept[split.fingerprint] = self.features(split.name, split.tensor())
        return self.kept[split.fingerprint]

    def distance(self, real: tuple[Tensor, Tensor | None], found: tuple[Tensor, Tensor | None]) -> Distance:
        inception = None if real[1] is None or found[1] is None else frechet_distance(real[1], found[1])
        return Distance(frechet_distance(real[0], found[0]), inception)

    def compared(
        self, real: tuple[Tensor, Tensor | None], found: tuple[Tensor, Tensor | None], split: Split, seed: int
    ) -> Judged:
        """Features of a split's pictures and of those that were made in their place. seed: of the groups."""
        return Judged(self.distance(real, found), self.found(found[0], split, seed))

    def rebuilt(self, name: str, autoencoder: Autoencoder, quantizer: Quantizer, split: Split, seed: int) -> Rebuilt:
        """Both paths of an autoencoder and its quantizer, in eval mode, on a split of its side. seed: of the groups."""
        kept: list[tuple[Tensor, Tensor]] = []
        progress = Progress(f"{name}, {split.name}, both paths", len(split.images))

        def see(continuous: Tensor, discrete: Tensor) -> None:
            kept.append((continuous, discrete))
            progress.at(sum(len(each) for each, _ in kept))

        figures = measure(autoencoder, quantizer, split.images, see)
        continuous, discrete = (torch.cat(part) for part in zip(*kept, strict=True))
        real, judged = self.real(split), []
        for images in (continuous, discrete):
            found = self.features(name, images)
            judged.append(self.compared(real, found, split, seed))
        return Rebuilt(figures, *judged)

    def drawn(self, subject: Subject, split: Split, seed: int) -> Drawn:
        """Prompt i of the split is drawn with seed + i."""
        began, count = time.monotonic(), len(split.prompts)
        seeds = [seed + i for i in range(count)]
        what = f"{subject.name}, {split.name}"
        with log_truncated_prompts(what):
            images = stacked(list(with_progress(what, subject.draw(split.prompts, seeds), count)))
        seconds = (time.monotonic() - began) / count
        found = self.features(what, images)
        return Drawn(self.compared(self.real(split), found, split, seed), count, seconds)

    def natural(self, split: Split, seed: int) -> Drawn:
        """The figures of real pictures: retrieval by them, and the distance between every second one and the rest.

        The distance is one of half as many pictures, so it is above what a perfect generator would get.
        """
        real = self.real(split)
        one, other = ((own[i::2], None if usual is None else usual[i::2]) for own, usual in [real] for i in (0, 1))
        judged = Judged(self.distance(one, other), self.found(real[0], split, seed))
        return Drawn(judged, len(split.prompts), 0.0)

    def found(self, features: Tensor, split: Split, seed: int) -> Retrieval:
        pictures = self.judge.model.embed_images(features)
        if split.fingerprint not in self.prompts:
            with log_truncated_prompts("evaluator"):
                self.prompts[split.fingerprint] = self.judge.embed_prompts(split.prompts)
        return retrieval(pictures, self.prompts[split.fingerprint], seed)
