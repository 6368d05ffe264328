"""The dial: quality of each speed against its seconds, and against the noise of another seed.

    python -m benchmarks.dial bundles/hart-emoji-int8 --data data/emoji --evaluator runs/judge/evaluator --out runs/dial

Every prompt is drawn at every speed with the same seed, and once more at the exact speed with another one: what that
changes is chance, so a speed that changes no more costs nothing that these figures can see. Differences are paired,
prompt by prompt, with the standard error of a bootstrap over the prompts. Seconds are medians, the speeds in turn.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.experiments.chart import Curve, chart
from benchmarks.experiments.notebook import Figures, Notebook, command, markdown, options
from benchmarks.samples import COLUMNS, sheet
from hart_edge.bundle.quality import psnr
from hart_edge.bundle.settings import Settings, Speed
from hart_edge.checks.macs import count_macs
from hart_edge.data.pictures import read_pictures
from hart_edge.errors import InputError
from hart_edge.evaluation.evaluate import Evaluation, Split, split_of, stacked
from hart_edge.evaluation.evaluator import open_evaluator
from hart_edge.evaluation.frechet import frechet_distance
from hart_edge.evaluation.progress import with_progress
from hart_edge.evaluation.retrieval import KS, groups_of, ranks
from hart_edge.evaluation.subjects import BundleSubject, open_bundle
from hart_edge.reference.dial import dial_of
from hart_edge.reference.presets import PRESETS, configs
from hart_edge.runtime.pipeline import Pipeline

OTHER = "another seed"  # the exact speed once more
SEED_STRIDE = 1_000_000  # pictures of two seeds share no noise
RESAMPLES = 200
HEAD = (
    "settings",
    "speed",
    "R@1 %",
    "against exact",
    "R@5 %",
    "against exact ",
    "Frechet",
    "against exact  ",
)
SECONDS = ("speed", "s a picture", "of exact", "s, same prompt again", "of exact ", "dB from exact")


@dataclass(frozen=True)
class Sample:
    """Pictures of all prompts in one way. hits: per k and prompt how often it was found, 0 to 1; features: (N, F)."""

    hits: dict[int, NDArray[np.float64]]
    features: torch.Tensor


def main(a: argparse.Namespace) -> None:
    judge = open_evaluator(a.evaluator)
    subject = open_bundle(a.bundle, Settings(), a.threads)
    speeds = [speed for speed in Speed if speed in subject.pipeline.manifest.plans]
    if len(speeds) < 2:
        raise InputError(f"{a.bundle}: expected a bundle of several speeds, found exact alone; build it for cpu")
    split = split_of("validation", read_pictures(a.data / "validation", subject.side), a.pictures)
    asked = {
        "bundle": subject.pipeline.bundle.sha256, "evaluator": judge.sha256, "data": split.fingerprint,
        "pictures": len(split.prompts), "top_p": a.top_p, "cfg_scale": a.cfg_scale, "rounds": a.rounds,
        "seeds": a.seeds,
    }  # fmt: skip
    notebook, evaluation = Notebook(a.out, asked), Evaluation(judge)
    for top_p, cfg_scale, seed in itertools.product(a.top_p, a.cfg_scale, range(a.seeds)):
        settings = Settings(top_p=top_p, cfg_scale=cfg_scale)
        notebook.measure(title(settings), seed, partial(compare, evaluation, subject, split, settings, speeds, seed))
    latency = notebook.measure("latency", 0, partial(seconds_of, subject.pipeline, split.prompts, speeds, a.rounds))
    write(notebook, a, speeds, latency)
    rows = split.prompts[:COLUMNS]
    pictures = [subject.pipeline.generate(list(rows), seed=range(len(rows)), speed=speed) for speed in speeds]
    captions = [f"{speed}: {prompt}" for speed in speeds for prompt in rows]
    sheet(list(itertools.chain(*pictures)), captions).save(a.out / "sheet.png")


def title(settings: Settings) -> str:
    return f"top_p {settings['top_p']:g}, cfg_scale {settings['cfg_scale']:g}"


def compare(
    evaluation: Evaluation,
    subject: BundleSubject,
    split: Split,
    settings: Settings,
    speeds: Sequence[Speed],
    seed: int,
) -> Figures:
    """Figures of every speed and of another seed: values, and differences from exact with their errors."""
    first, other = 2 * seed * SEED_STRIDE, (2 * seed + 1) * SEED_STRIDE
    ways: dict[str, tuple[int, Speed]] = {str(speed): (first, speed) for speed in speeds}
    ways[OTHER] = (other, Speed.EXACT)
    samples = {}
    for name, (start, speed) in ways.items():
        subject.settings = Settings(**{**settings, "speed": speed})
        seeds = [start + number for number in range(len(split.prompts))]
        what = f"{title(settings)}, {name}"
        images = stacked(list(with_progress(what, subject.draw(split.prompts, seeds), len(seeds))))
        samples[name] = judged(evaluation, split, evaluation.features(what, images)[0])
    real, exact, count = evaluation.real(split)[0], samples[Speed.EXACT], len(split.prompts)
    draws = [np.random.default_rng((1, number)).integers(0, count, count) for number in range(RESAMPLES)]
    distances = {name: distances_of(sample, real, draws) for name, sample in samples.items()}
    found: Figures = {}
    for name, sample in samples.items():
        found[name] = {"frechet": distances[name][0]}
        found[name] |= {f"r@{k}": float(hits.mean()) for k, hits in sample.hits.items()}
        for k in KS:
            own = sample.hits[k] - exact.hits[k]
            found[name][f"r@{k} against"] = [float(own.mean()), float(np.std([own[rows].mean() for rows in draws]))]
        against = distances[name] - distances[Speed.EXACT]
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


def seconds_of(pipeline: Pipeline, prompts: Sequence[str], speeds: Sequence[Speed], rounds: int) -> Figures:
    """Median seconds of a picture of a new prompt and of one that was drawn before, and how far its pixels are from
    exact, in dB, mean over the rounds; the speeds take turns, the first round warms up."""
    times: dict[Speed, tuple[list[float], list[float]]] = {speed: ([], []) for speed in speeds}
    errors: dict[Speed, list[float]] = {speed: [] for speed in speeds}
    for number in range(rounds + 1):
        prompt, pictures = prompts[number % len(prompts)], {}
        for speed in speeds:
            for kept, into in zip((False, True), times[speed], strict=True):
                if not kept:
                    pipeline.forget()
                began = time.perf_counter()
                pictures[speed] = np.asarray(pipeline.generate(prompt, seed=number, speed=speed), np.float64)
                if number:
                    into.append(time.perf_counter() - began)
            errors[speed].append(float(np.square(pictures[speed] - pictures[Speed.EXACT]).mean()))
    return {
        str(speed): {
            "new": statistics.median(times[speed][0]),
            "again": statistics.median(times[speed][1]),
            "psnr": psnr(statistics.fmean(errors[speed]) / 255**2),
        }
        for speed in speeds
    }


def write(notebook: Notebook, a: argparse.Namespace, speeds: Sequence[Speed], latency: Figures) -> None:
    rows, curves = [], {"r@1": list[Curve](), "frechet": list[Curve]()}
    noise: dict[str, list[float]] = {name: [] for name in curves}
    for top_p, cfg_scale in itertools.product(a.top_p, a.cfg_scale):
        name = title(Settings(top_p=top_p, cfg_scale=cfg_scale))
        runs = [notebook.runs[f"{name}, seed {seed}"] for seed in range(a.seeds)]
        for way in (*map(str, speeds), OTHER):
            cells = []
            for figure, factor, digits in (("r@1", 100, 1), ("r@5", 100, 1), ("frechet", 1, 3)):
                value, against, error = pooled([run[way] for run in runs], figure)
                cells.append(f"{factor * value:.{digits}f}")
                told = f"{factor * against:+.{digits}f} ± {factor * error:.{digits}f}"
                cells.append("" if way == Speed.EXACT else told)
                if way == OTHER and figure in noise:
                    noise[figure].append(abs(factor * against))
            rows.append([name, way, *cells])
        for figure, factor in (("r@1", 100), ("frechet", 1)):
            found = [pooled([run[str(speed)] for run in runs], figure) for speed in speeds]
            points = [
                (latency[str(speed)]["new"], factor * value, factor * error if speed is not Speed.EXACT else 0.0)
                for speed, (value, _, error) in zip(speeds, found, strict=True)
            ]
            curves[figure].append(Curve(name, points))
    macs = markdown(("", "exact, GMAC", *(f"{speed}, of exact" for speed in speeds[1:])), [*arithmetic_rows(speeds)])
    notebook.write(
        "table.md", macs + "\n" + markdown(SECONDS, [*seconds_rows(speeds, latency)]) + "\n" + markdown(HEAD, rows)
    )
    for figure, label in (("r@1", "R@1, %"), ("frechet", "Frechet distance")):
        band = max(noise[figure])
        drawn = chart(f"{label} of exact, balanced and fast", "seconds a picture", label, curves[figure], band=band)
        notebook.write(f"{figure.replace('@', '')}.svg", drawn)
    print((notebook.folder / "table.md").read_text("utf-8"), end="")


def pooled(runs: Sequence[Figures], figure: str) -> tuple[float, float, float]:
    """Of several seeds: the mean value, the mean difference from exact, and the standard error of that mean."""
    against = [run[f"{figure} against"] for run in runs]
    error = float(np.sqrt(sum(each[1] ** 2 for each in against))) / len(against)
    return statistics.fmean(run[figure] for run in runs), statistics.fmean(each[0] for each in against), error


def seconds_rows(speeds: Sequence[Speed], latency: Figures) -> Iterator[list[str]]:
    exact = latency[str(Speed.EXACT)]
    for speed in speeds:
        own: dict[str, Any] = latency[str(speed)]
        psnr = "" if own["psnr"] is None else f"{own['psnr']:.1f}"
        new, again = (f"{own[name]:.3f}" for name in ("new", "again"))
        shares = [f"{own[name] / exact['new']:.0%}" for name in ("new", "again")]
        yield [str(speed), new, shares[0], again, shares[1], psnr]


def arithmetic_rows(speeds: Sequence[Speed]) -> Iterator[list[str]]:
    """Multiply-accumulates of a picture of each published shape, text model not counted."""
    for preset in PRESETS:
        transformer, tokenizer = configs(preset)
        parts = [part for part in count_macs(transformer, tokenizer) if part.component != "encoder"]
        scales, steps = len(transformer.patch_nums), transformer.num_sampling_steps
        totals = []
        for speed in speeds:
            dial = dial_of(speed, scales, steps)
            total = 0.0
            for part in parts:
                scale = scales - 1 if part.component == "residual" else part.scale or 0
                branches = 2 if part.guided and scale < dial.guided else 1
                share = dial.steps / steps if part.component == "residual" else 1
                total += (part.layers + part.attention) * branches * share
            totals.append(total)
        shares = [f"{total / totals[0]:.0%}" for total in totals[1:]]
        yield [preset, f"{totals[0] / 1e9:,.0f}", *shares]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.dial", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("bundle", type=Path, help="a bundle for cpu with a text model")
    options(p)
    p.add_argument("--evaluator", type=Path, required=True, metavar="DIR", help="the trained evaluator/ folder")
    p.add_argument("--pictures", type=int, default=300, metavar="N", help="prompts of validation (default: 300)")
    p.add_argument("--top-p", type=float, nargs="+", default=[0.5, 1.0], metavar="P", help="default: 0.5 1")
    p.add_argument("--cfg-scale", type=float, nargs="+", default=[3.0, 4.5], metavar="X", help="default: 3 4.5")
    p.add_argument("--rounds", type=int, default=20, metavar="N", help="timed pictures a speed (default: 20)")
    return p


if __name__ == "__main__":
    sys.exit(command(main, parser(), None))
