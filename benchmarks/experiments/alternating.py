"""How often the discrete path is trained, against the quality of reconstructions by both paths (paper, section 3.1).

For each ratio and seed a small tokenizer is trained on DATA/train and measured on DATA/validation. OUT has table.md,
results.json and alternating.svg; after an interruption the same command resumes.

    python -m benchmarks.experiments.alternating --data data/emoji --out runs/alternating
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import sys
import time
from functools import partial
from pathlib import Path

from benchmarks.experiments.chart import Curve, chart
from benchmarks.experiments.notebook import (
    Figures,
    Notebook,
    command,
    markdown,
    mean_of,
    options,
    train_to_end,
    training_options,
)
from hart_edge.data.pictures import Pictures, read_pictures
from hart_edge.evaluation.reconstruction import measure
from hart_edge.training.loop import Habits
from hart_edge.training.recipe import read_recipe, to_json
from hart_edge.training.tokenizer.codebook import CodebookCare
from hart_edge.training.tokenizer.recipe import HART_EMOJI, TokenizerRecipe, open_tokenizer
from hart_edge.training.tokenizer.task import TokenizerTask

SMALL = TokenizerRecipe(
    dataclasses.replace(HART_EMOJI.optimisation, steps=1500, warmup=100, average=0.99),
    dataclasses.replace(HART_EMOJI.tokenizer, patch_nums=(1, 2, 3, 4), vocab_size=512),
    side=64,
    codebook=CodebookCare(start=500),
)
HEAD = (
    "discrete path", "continuous PSNR dB", "continuous SSIM", "discrete PSNR dB", "discrete SSIM", "codes used %",
)  # fmt: skip
FIGURES = (
    ("continuous_psnr", 2, 1), ("continuous_ssim", 4, 1), ("discrete_psnr", 2, 1), ("discrete_ssim", 4, 1),
    ("codes_used", 1, 100),
)  # fmt: skip


def main(a: argparse.Namespace) -> None:
    base = read_recipe(TokenizerRecipe, SMALL, a.recipe, a.set)
    train, validation = (read_pictures(a.data / part, base.side) for part in ("train", "validation"))
    fingerprint = hashlib.sha256("\n".join((str(base.side), *train.names)).encode()).hexdigest()
    asked = {
        "recipe": to_json(base), "ratios": a.ratios, "data": fingerprint, "pictures": len(validation),
        "precision": a.precision,
    }  # fmt: skip
    notebook = Notebook(a.out, asked)
    for seed in range(a.seeds):
        for ratio in a.ratios:
            recipe = dataclasses.replace(
                base, alternating=ratio, optimisation=dataclasses.replace(base.optimisation, seed=seed)
            )
            folder = a.out / "runs" / f"{ratio:g}-seed-{seed}"
            task = TokenizerTask(recipe, train.images, validation.images, fingerprint)
            notebook.measure(f"{ratio:g}", seed, partial(one, task, folder, validation, a.precision))
    write(notebook, a.ratios, a.seeds)


def one(task: TokenizerTask, folder: Path, validation: Pictures, precision: str) -> Figures:
    """Train one tokenizer to its end; return its figures on all of validation, with the published weights."""
    began = time.monotonic()
    train_to_end(task, folder, Habits(look_steps=task.recipe.optimisation.steps), precision)
    model = open_tokenizer(folder / "tokenizer")
    found = measure(model.autoencoder, model.quantizer, validation.images)
    return {**found.figures(), "seconds": round(time.monotonic() - began)}


def write(notebook: Notebook, ratios: list[float], seeds: int) -> None:
    runs = {ratio: [notebook.runs[f"{ratio:g}, seed {seed}"] for seed in range(seeds)] for ratio in ratios}
    rows: list[list[str]] = []
    curves: dict[str, list[tuple[float, float, float]]] = {"continuous": [], "discrete": []}
    for ratio, found in runs.items():
        means = {name: mean_of([factor * run[name] for run in found]) for name, _, factor in FIGURES}
        rows.append([f"{100 * ratio:g} %", *(means[name].text(digits) for name, digits, _ in FIGURES)])
        for path, points in curves.items():
            mean = means[f"{path}_psnr"]
            points.append((100 * ratio, mean.value, mean.spread or 0.0))
    notebook.write("table.md", markdown(HEAD, rows))
    drawn = [Curve(f"{path} path", points) for path, points in curves.items()]
    title = f"How often the discrete path is trained, {seeds} seeds"
    notebook.write("alternating.svg", chart(title, "discrete path, % of pictures", "validation PSNR, dB", drawn))
    print((notebook.folder / "table.md").read_text("utf-8"), end="")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments.alternating",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options(p)
    p.add_argument("--ratios", type=float, nargs="+", default=[0.0, 0.25, 0.5, 0.75, 1.0], metavar="R")
    training_options(p, "a small tokenizer")
    return p


if __name__ == "__main__":
    sys.exit(command(main, parser(), None))
