"""Steps of the residual diffusion (off, 1, 2, 4, ...) against quality, latency and multiply-accumulates.

The reference draws the validation prompts with each number of steps, by the same weights of a trained checkpoint. OUT
has table.md, results.json and two plots; after an interruption the same command resumes.

    python -m benchmarks.experiments.residual_steps --data data/emoji --evaluator runs/judge/evaluator --out runs/steps
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from benchmarks.experiments.chart import Curve, chart
from benchmarks.experiments.notebook import Figures, Notebook, command, markdown, mean_of, options
from hart_edge.bundle.settings import Settings
from hart_edge.checks.macs import count_macs
from hart_edge.data.pictures import read_pictures
from hart_edge.errors import InputError
from hart_edge.evaluation.evaluate import Evaluation, Split, split_of
from hart_edge.evaluation.evaluator import open_evaluator
from hart_edge.evaluation.subjects import Reference, reference_of
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.presets import SHIPPED_MODEL
from hart_edge.reference.residual import ResidualMLP, make_schedule

SEED_STRIDE = 1_000_000  # pictures of two seeds share no noise
HEAD = ("residual", "Frechet", "R@1 %", "R@5 %", "ms a picture", "residual, M MACs", "picture, M MACs")


class NoResidual(nn.Module):
    """Takes the place of the residual MLP, and adds nothing."""

    def sample(self, condition: Tensor, noise: list[Tensor], strength: Tensor | float, **more: object) -> Tensor:
        return torch.zeros_like(noise[0])


class Steps:
    """A reference whose number of residual steps can be changed; 0 turns the residual off."""

    def __init__(self, reference: Reference) -> None:
        self.reference, self.config = reference, reference.hart.config
        self.residual: ResidualMLP = reference.hart.residual

    def take(self, steps: int) -> Reference:
        hart = self.reference.hart
        hart.residual = self.residual if steps else cast(ResidualMLP, NoResidual())
        self.residual.schedule = make_schedule(max(steps, 1))
        hart.config = dataclasses.replace(self.config, num_sampling_steps=max(steps, 1))
        return self.reference


def main(a: argparse.Namespace) -> None:
    if min(a.steps) < 0 or max(a.steps) > 1000 or len(set(a.steps)) < len(a.steps):
        raise InputError(f"--steps: expected different numbers from 0 to 1000, found {a.steps}")
    judge, checkpoint = open_evaluator(a.evaluator), load_checkpoint(a.checkpoint)
    steps = Steps(reference_of(checkpoint, Settings()))
    split = split_of("validation", read_pictures(a.data / "validation", steps.reference.side), a.pictures)
    if len(split.prompts) < 2:
        raise InputError(f"--pictures: expected at least 2, found {len(split.prompts)}")
    asked = {
        "checkpoint": str(a.checkpoint), "evaluator": judge.sha256, "data": split.fingerprint, "steps": a.steps,
        "pictures": len(split.prompts), "rounds": a.rounds,
    }  # fmt: skip
    notebook, evaluation = Notebook(a.out, asked), Evaluation(judge)
    for seed in range(a.seeds):
        for count in a.steps:
            notebook.measure(str(count), seed, partial(one, evaluation, steps, count, split, seed))
    latency = notebook.measure("latency", 0, lambda: latencies(steps, a.steps, split, a.rounds))
    write(notebook, a, latency, {count: macs(steps, count) for count in a.steps})


def one(evaluation: Evaluation, steps: Steps, count: int, split: Split, seed: int) -> Figures:
    found = evaluation.drawn(steps.take(count), split, seed * SEED_STRIDE)
    return {
        "frechet": found.judged.distance.judge,
        **{f"r@{k}": value for k, value in found.judged.retrieval.at.items()},
    }


def latencies(steps: Steps, counts: list[int], split: Split, rounds: int) -> Figures:
    """Median seconds of one picture, text model and decoder included, at batch 1; the settings alternate."""
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    for number in range(rounds + 1):
        for count in counts:
            reference, began = steps.take(count), time.perf_counter()
            list(reference.draw(split.prompts[:1], [0]))
            if number:  # the first round warms up
                seconds[count].append(time.perf_counter() - began)
    return {str(count): statistics.median(times) for count, times in seconds.items()}


def macs(steps: Steps, count: int) -> tuple[int, int]:
    """Multiply-accumulates of the residual and of a whole picture, with both branches of guidance."""
    config = dataclasses.replace(steps.config, num_sampling_steps=max(count, 1))
    found = count_macs(config, steps.reference.hart.tokenizer_config)
    each = {"residual": 0, "picture": 0}
    for part in found:
        if part.component == "encoder" or (part.component == "residual" and not count):
            continue
        total = (part.layers + part.attention) * (1 + part.guided)
        each["picture"] += total
        each["residual"] += total if part.component == "residual" else 0
    return each["residual"], each["picture"]


def write(notebook: Notebook, a: argparse.Namespace, latency: Figures, counted: dict[int, tuple[int, int]]) -> None:
    rows, distance, found = [], [], []
    for count in a.steps:
        runs = [notebook.runs[f"{count}, seed {seed}"] for seed in range(a.seeds)]
        frechet, first, fifth = (
            mean_of([factor * run[name] for run in runs])
            for name, factor in (("frechet", 1), ("r@1", 100), ("r@5", 100))
        )
        residual, picture = (f"{value / 1e6:,.0f}" for value in counted[count])
        milliseconds = f"{1000 * latency[str(count)]:.0f}"
        name = f"{count} step{'s' * (count > 1)}" if count else "off"
        rows.append([name, frechet.text(4), first.text(1), fifth.text(1), milliseconds, residual, picture])
        distance.append((count, frechet.value, frechet.spread or 0.0))
        found.append((count, first.value, first.spread or 0.0))
    notebook.write("table.md", markdown(HEAD, rows))
    for name, label, points in (("frechet", "Frechet distance", distance), ("retrieval", "R@1, %", found)):
        title = f"{label} by steps of the residual, {a.seeds} seeds"
        notebook.write(f"{name}.svg", chart(title, "steps (0: off)", label, [Curve("", points)], a.steps))
    print((notebook.folder / "table.md").read_text("utf-8"), end="")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments.residual_steps",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options(p)
    p.add_argument("--evaluator", type=Path, required=True, metavar="DIR", help="the trained evaluator/ folder")
    p.add_argument("--checkpoint", type=Path, default=SHIPPED_MODEL, metavar="DIR", help="default: the shipped model")
    p.add_argument("--steps", type=int, nargs="+", default=[0, 1, 2, 4, 8, 16], metavar="N", help="0: off")
    p.add_argument("--pictures", type=int, default=200, metavar="N", help="prompts a run (default: 200)")
    p.add_argument("--rounds", type=int, default=5, metavar="N", help="timed pictures a setting (default: 5)")
    return p


if __name__ == "__main__":
    sys.exit(command(main, parser(), None))
