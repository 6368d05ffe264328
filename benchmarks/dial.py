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
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.experiments.chart import Curve, chart
from benchmarks.experiments.notebook import Figures, Notebook, command, markdown, options
from benchmarks.experiments.paired import HEAD, OTHER, Draw, cells_of, compare, pooled, seeds_of
from benchmarks.samples import COLUMNS, sheet
from hart_edge.bundle.quality import psnr
from hart_edge.bundle.settings import Settings, Speed, merged
from hart_edge.checks.macs import count_macs
from hart_edge.data.pictures import read_pictures
from hart_edge.errors import InputError
from hart_edge.evaluation.evaluate import Evaluation, split_of
from hart_edge.evaluation.evaluator import open_evaluator
from hart_edge.evaluation.subjects import BundleSubject, open_bundle
from hart_edge.reference.config import TokenizerConfig, TransformerConfig
from hart_edge.reference.dial import dial_of
from hart_edge.reference.presets import PRESETS, configs
from hart_edge.runtime.pipeline import Pipeline

BY_TOKEN = ("transformer", "tokens", "residual")  # the components that compute less where a speed leaves tokens out
SECONDS = ("speed", "s a picture", "of exact", "s, same prompt again", "of exact ", "dB from exact")


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
        ways = ways_of(subject, settings, speeds, seed, len(split.prompts))
        notebook.measure(title(settings), seed, partial(compare, evaluation, split, title(settings), ways))
    latency = notebook.measure("latency", 0, partial(seconds_of, subject.pipeline, split.prompts, speeds, a.rounds))
    write(notebook, a, speeds, latency)
    rows = split.prompts[:COLUMNS]
    pictures = [subject.pipeline.generate(list(rows), seed=range(len(rows)), speed=speed) for speed in speeds]
    captions = [f"{speed}: {prompt}" for speed in speeds for prompt in rows]
    sheet(list(itertools.chain(*pictures)), captions).save(a.out / "sheet.png")


def title(settings: Settings) -> str:
    return f"top_p {settings['top_p']:g}, cfg_scale {settings['cfg_scale']:g}"


def ways_of(
    subject: BundleSubject, settings: Settings, speeds: Sequence[Speed], run: int, count: int
) -> dict[str, Draw]:
    """Every speed with the same seeds, and exact with others."""
    chosen = [(str(speed), speed, seeds_of(run, count)) for speed in speeds]
    chosen.append((OTHER, Speed.EXACT, seeds_of(run, count, other=True)))

    def draw(prompts: Sequence[str], speed: Speed, seeds: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        subject.settings = merged(settings, Settings(speed=speed))
        return subject.draw(prompts, seeds)

    return {name: partial(draw, speed=speed, seeds=seeds) for name, speed, seeds in chosen}


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
            rows.append([name, way, *cells_of([run[way] for run in runs], first=way == Speed.EXACT)])
        for figure, factor in (("r@1", 100), ("frechet", 1)):
            noise[figure].append(abs(factor * pooled([run[OTHER] for run in runs], figure)[1]))
        for figure, factor in (("r@1", 100), ("frechet", 1)):
            found = [pooled([run[str(speed)] for run in runs], figure) for speed in speeds]
            points = [
                (latency[str(speed)]["new"], factor * value, factor * error if speed is not Speed.EXACT else 0.0)
                for speed, (value, _, error) in zip(speeds, found, strict=True)
            ]
            curves[figure].append(Curve(name, points))
    macs = markdown(("", "exact, GMAC", *(f"{speed}, of exact" for speed in speeds[1:])), [*arithmetic_rows(speeds)])
    notebook.write(
        "table.md",
        macs
        + "\n"
        + markdown(SECONDS, [*seconds_rows(speeds, latency)])
        + "\n"
        + markdown(("settings", "speed", *HEAD), rows),
    )
    for figure, label in (("r@1", "R@1, %"), ("frechet", "Frechet distance")):
        band = max(noise[figure])
        drawn = chart(f"{label} of exact, balanced and fast", "seconds a picture", label, curves[figure], band=band)
        notebook.write(f"{figure.replace('@', '')}.svg", drawn)
    print((notebook.folder / "table.md").read_text("utf-8"), end="")


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
        totals = [multiply_accumulates(*configs(preset), speed) for speed in speeds]
        yield [preset, f"{totals[0] / 1e9:,.0f}", *(f"{total / totals[0]:.0%}" for total in totals[1:])]


def all_keys(tokens: Sequence[int], scale: int) -> int:
    """How many keys the tokens of a scale attend to. tokens: of every scale, as many as are computed."""
    return sum(tokens[: scale + 1])


def multiply_accumulates(
    transformer: TransformerConfig,
    tokenizer: TokenizerConfig,
    speed: Speed,
    keys_of: Callable[[Sequence[int], int], int] = all_keys,
) -> float:
    """Of a picture, with both branches of the guidance where a speed has them; no encoder and no text model."""
    sides, steps = transformer.patch_nums, transformer.num_sampling_steps
    dial = dial_of(speed, sides, steps)
    every = [transformer.context_token, *(side * side for side in sides[1:])]
    computed = [transformer.context_token, *dial.kept[1:]]
    total = 0.0
    for part in count_macs(transformer, tokenizer):
        if part.component == "encoder":
            continue
        scale = len(sides) - 1 if part.component == "residual" else part.scale or 0
        share, keys = 2.0 if part.guided and scale < dial.guided else 1.0, 1.0
        if part.component == "residual":
            share *= dial.steps / steps
        if part.component in BY_TOKEN:
            share *= computed[scale] / every[scale]
            keys = keys_of(computed, scale) / all_keys(every, scale)
        total += (part.layers + part.attention * keys) * share
    return total


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
