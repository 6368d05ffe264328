"""Ways of drawing the same prompts, compared prompt by prompt with the first of them.

In: ways, each a function from prompts to pictures. Out: quality of each, and its differences from the first with the
standard error of a bootstrap over the prompts. One way should be the first with other seeds: it shows what is chance.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.experiments.notebook import Figures
from hart_edge.evaluation.evaluate import Evaluation, Split, stacked
from hart_edge.evaluation.frechet import frechet_distance
from hart_edge.evaluation.progress import with_progress
from hart_edge.evaluation.retrieval import KS, groups_of, ranks

OTHER = "another seed"  # the name of the way that is the first with other seeds
SEED_STRIDE = 1_000_000  # pictures of two seeds share no noise
RESAMPLES = 200
# The columns of cells_of().
HEAD = ("R@1 %", "against exact", "R@5 %", "against exact ", "Frechet", "against exact  ")

Draw = Callable[[Sequence[str]], Iterator[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Sample:
    """Pictures of all prompts in one way. hits: per k and prompt how often it was found, 0 to 1; features: (N, F)."""

    hits: dict[int, NDArray[np.float64]]
    features: torch.Tensor


def seeds_of(run: int, count: int, *, other: bool = False) -> list[int]:
    """The seeds of a run's pictures, or the others of the same run."""
    start = (2 * run + other) * SEED_STRIDE
    return [start + number for number in range(count)]


def compare(evaluation: Evaluation, split: Split, title: str, ways: Mapping[str, Draw]) -> Figures:
    """Figures of every way: values, and differences from the first with their errors."""
    samples = {}
    for name, draw in ways.items():
        what = f"{title}, {name}"
        images = stacked(list(with_progress(what, draw(split.prompts), len(split.prompts))))
        samples[name] = judged(evaluation, split, evaluation.features(what, images)[0])
    real, first, count = evaluation.real(split)[0], next(iter(samples)), len(split.prompts)
    draws = [np.random.default_rng((1, number)).integers(0, count, count) for number in range(RESAMPLES)]
    distances = {name: distances_of(sample, real, draws) for name, sample in samples.items()}
    found: Figures = {}
    for name, sample in samples.items():
        found[name] = {"frechet": distances[name][0]}
        found[name] |= {f"r@{k}": float(hits.mean()) for k, hits in sample.hits.items()}
        for k in KS:
            own = sample.hits[k] - samples[first].hits[k]
            found[name][f"r@{k} against"] = [float(own.mean()), float(np.std([own[rows].mean() for rows in draws]))]
        against = distances[name] - distances[first]
        found[name]["frechet against"] = [float(against[0]), float(np.std(against[1:]))]
    return found


def judged(evaluation: Evaluation, split: Split, features: torch.Tensor) -> Sample:
    pictures = evaluation.judge.model.embed_images(features)
    similar = (pictures.double() @ evaluation.judge.embed_prompts(split.prompts).double().T).cpu()
    hits = {k: np.zeros(len(similar)) for k in KS}
    times = np.zeros(len(similar))
    for group in groups_of(len(similar), 0):
        found = ranks(similar[group][:, group]).numpy()
        times[group] += 1
        for k in KS:
            hits[k][group] += found < k
    return Sample({k: each / np.maximum(times, 1) for k, each in hits.items()}, features)


def distances_of(sample: Sample, real: torch.Tensor, draws: Sequence[NDArray[np.int64]]) -> NDArray[np.float64]:
    """The Frechet distance, and those of resampled pictures: a quarter of the draws, since each takes the root of a
    matrix."""
    chosen = [sample.features, *(sample.features[rows] for rows in draws[: len(draws) // 4])]
    return np.array([frechet_distance(real, features) for features in chosen])


def pooled(runs: Sequence[Figures], figure: str) -> tuple[float, float, float]:
    """Of several seeds: the mean value, the mean difference from the first way, and the standard error of that mean."""
    against = [run[f"{figure} against"] for run in runs]
    error = float(np.sqrt(sum(each[1] ** 2 for each in against))) / len(against)
    return statistics.fmean(run[figure] for run in runs), statistics.fmean(each[0] for each in against), error


def cells_of(runs: Sequence[Figures], *, first: bool) -> list[str]:
    """A way's cells under HEAD. runs: its figures of every seed; first: whether the others are held against it."""
    cells = []
    for figure, factor, digits in (("r@1", 100, 1), ("r@5", 100, 1), ("frechet", 1, 3)):
        value, against, error = pooled(runs, figure)
        told = f"{factor * against:+.{digits}f} ± {factor * error:.{digits}f}"
        cells += [f"{factor * value:.{digits}f}", "" if first else told]
    return cells
