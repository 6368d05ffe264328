"""Relative against absolute positions when a transformer continues at a higher resolution (paper, section 3.3).

For each kind and seed a small transformer is trained at the low scales, then at the high ones; its validation
cross-entropy is measured on the way. Both kinds see all tokens of the last scale. OUT has table.md, results.json and
positions.svg; after an interruption the same command resumes.

    python -m benchmarks.experiments.positions --data data/emoji --tokenizer runs/t/tokenizer --out runs/positions
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks.experiments.absolute import AbsoluteTransformer, resized_positions
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
from hart_edge.errors import InputError
from hart_edge.evaluation.reconstruction import spread
from hart_edge.reference.config import TransformerConfig
from hart_edge.reference.residual import ResidualMLP
from hart_edge.reference.transformer import Transformer
from hart_edge.training.captions import TextRecipe
from hart_edge.training.checkpoints import State, load_state, states
from hart_edge.training.loop import Habits, TrainingSession, make_accelerator
from hart_edge.training.recipe import Optimisation, read_recipe, to_json
from hart_edge.training.tokenizer.recipe import Tokenizer, open_tokenizer
from hart_edge.training.transformer.codes import digest_of
from hart_edge.training.transformer.recipe import Generator, TransformerRecipe
from hart_edge.training.transformer.setup import examples_of, fingerprint_of, text_of, with_tokenizer
from hart_edge.training.transformer.start import initialise
from hart_edge.training.transformer.task import TransformerTask

KINDS: dict[str, type[Transformer]] = {"relative": Transformer, "absolute": AbsoluteTransformer}
LOW, HIGH = (1, 2, 3, 4, 5, 6, 8), (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)  # 128 and 256 px
SMALL = TransformerRecipe(
    Optimisation(steps=1500, batch=16, learning_rate=1e-3, warmup=100, average=0.99),
    TransformerConfig(
        LOW, embed_dim=128, depth=6, num_heads=4, context_token=24, context_dim=96, diff_width=128, diff_depth=2,
        num_sampling_steps=8, shared_aln=True, diffusion_batch_mul=1,
    ),
    text=TextRecipe(depth=2, num_heads=4, hidden=256),
    token_drop=0.0,
)  # fmt: skip


class PositionsTask(TransformerTask):
    """The transformer's task, with a curve: steps done -> validation cross-entropy of the averaged weights."""

    every = 100
    curve: dict[int, float]

    def begin(self, session: TrainingSession) -> None:
        super().begin(session)
        self.curve = {}

    def losses(self, session: TrainingSession, rows: list[int], share: slice, step: int) -> dict[str, Any]:
        if not self.curve:
            self.note(session, step)
        return super().losses(session, rows, share, step)

    def after(self, session: TrainingSession, step: int) -> None:
        if (step + 1) % self.every == 0 or step + 1 == self.recipe.optimisation.steps:
            self.note(session, step + 1)

    @torch.no_grad()
    def note(self, session: TrainingSession, step: int) -> None:
        losses = []
        with session.average.applied():
            for batch in self.validation_batches():
                batch = batch.to(session.accelerator.device)
                logits = self.model.predict(batch).logits
                losses.append(F.cross_entropy(logits.transpose(1, 2), batch.indices, reduction="none").mean(1).cpu())
        self.curve[step] = float(torch.cat(losses).mean())

    def state(self) -> State:
        return {"curve": self.curve}

    def load(self, state: State) -> None:
        self.curve = dict(state["curve"])

    def figures(self) -> dict[str, float]:
        return {"cross_entropy": self.curve[max(self.curve)]}

    def sheet(self) -> Image.Image:
        """Pictures of validation: with absolute positions, which need all scales at once, a model cannot draw."""
        return Image.fromarray(np.concatenate(list(self.validation.images[:8]), 1))

    def publish(self, folder: Path, step: int) -> None:
        pass


def main(a: argparse.Namespace, task_type: type[PositionsTask] | None = None) -> None:
    """task_type: the task to train instead of PositionsTask."""
    low = read_recipe(TransformerRecipe, SMALL, a.recipe, a.set)
    if low.token_drop or not low.transformer.use_timestep_embed or low.transformer.patch_nums == tuple(a.high):
        raise InputError(
            "expected token_drop 0, since absolute positions need all tokens, transformer.use_timestep_embed, since a "
            f"table of levels would not fit, and other --high than patch_nums; found {low.token_drop:g}, "
            f"{low.transformer.use_timestep_embed} and {a.high}"
        )
    if a.every < 1 or a.high_steps < 2 or a.pictures < 4:
        raise InputError("--every, --high-steps, --pictures: expected at least 1, 2 and 4")
    tokenizer = open_tokenizer(a.tokenizer)
    asked = {
        "recipe": to_json(low), "high": a.high, "high_steps": a.high_steps, "pictures": a.pictures,
        "every": a.every, "tokenizer": digest_of(tokenizer), "precision": a.precision,
    }  # fmt: skip
    notebook = Notebook(a.out, asked)
    for seed in range(a.seeds):
        for kind in KINDS:
            notebook.measure(kind, seed, partial(one, a, low, kind, seed, tokenizer, task_type or PositionsTask))
    write(notebook, a.seeds)


def one(
    a: argparse.Namespace,
    base: TransformerRecipe,
    kind: str,
    seed: int,
    tokenizer: Tokenizer,
    task_type: type[PositionsTask],
) -> Figures:
    """Both curves of a kind and a seed."""
    low = dataclasses.replace(base, optimisation=dataclasses.replace(base.optimisation, seed=seed))
    optimisation = dataclasses.replace(
        low.optimisation, steps=a.high_steps, warmup=min(low.optimisation.warmup, a.high_steps // 10)
    )
    scales = dataclasses.replace(low.transformer, patch_nums=tuple(a.high))
    high = dataclasses.replace(low, transformer=scales, side=16 * a.high[-1], optimisation=optimisation)
    curves: dict[str, dict[int, float]] = {}
    carried: dict[str, torch.Tensor] | None = None
    for name, recipe in (("low", low), ("high", high)):
        folder = a.out / "runs" / f"{kind}-seed-{seed}-{name}"
        task = task_of(a, recipe, kind, tokenizer, task_type)
        if carried is not None:
            start_from(task.model, carried)
        train_to_end(task, folder, Habits(look_steps=recipe.optimisation.steps), a.precision)
        curves[name] = task.curve
        carried = load_state(states(folder)[-1])["average"]
    return {name: {str(step): loss for step, loss in curve.items()} for name, curve in curves.items()}


def task_of(
    a: argparse.Namespace,
    recipe: TransformerRecipe,
    kind: str,
    tokenizer: Tokenizer,
    task_type: type[PositionsTask],
) -> PositionsTask:
    train = some(read_pictures(a.data / "train", recipe.side), a.pictures)
    validation = read_pictures(a.data / "validation", recipe.side)
    hart, text = with_tokenizer(recipe, tokenizer), text_of(recipe, train, None)
    sizes = tokenizer.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.optimisation.seed)
        transformer = KINDS[kind](recipe.transformer, sizes.vocab_size, sizes.z_channels)
        residual = ResidualMLP(recipe.transformer, sizes.z_channels)
        initialise(transformer, residual)
    accelerator = make_accelerator(a.precision)
    learned, judged = (
        examples_of(accelerator, hart, text, each, a.data / part)
        for each, part in ((train, "train"), (validation, "validation"))
    )
    model = Generator(text.model, transformer, residual, recipe.scale_balance)
    fingerprint = fingerprint_of(learned, tokenizer, text)
    task = task_type(recipe, model, learned, judged, text, hart, a.tokenizer, fingerprint)
    task.every = a.every
    return task


def some(pictures: Pictures, count: int) -> Pictures:
    """Up to `count` of the pictures, evenly spaced."""
    rows = spread(len(pictures), count)
    captions, names = tuple(pictures.captions[row] for row in rows), tuple(pictures.names[row] for row in rows)
    return Pictures(np.ascontiguousarray(pictures.images[rows]), captions, names)


def start_from(model: Generator, carried: dict[str, torch.Tensor]) -> None:
    """Load weights trained at other scales; a table of absolute positions is resized."""
    own, prefix = dict(model.named_parameters()), "transformer.positions."
    tables = [carried[f"{prefix}{i}"] for i in range(sum(name.startswith(prefix) for name in carried))]
    values = {name: tensor for name, tensor in carried.items() if not name.startswith(prefix)}
    if tables:
        sides = model.transformer.config.patch_nums[1:]
        values |= {f"{prefix}{i}": table for i, table in enumerate(resized_positions(tables, sides))}
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(values[name])


def write(notebook: Notebook, seeds: int) -> None:
    runs = {kind: [notebook.runs[f"{kind}, seed {seed}"] for seed in range(seeds)] for kind in KINDS}
    steps = sorted(map(int, runs["relative"][0]["high"]))
    means = {
        (kind, step): mean_of([run["high"][str(step)] for run in found])
        for kind, found in runs.items()
        for step in steps
    }
    rows = [
        [kind, mean_of([run["low"][max(run["low"], key=int)] for run in found]).text(3)]
        + [means[kind, step].text(3) for step in shown(steps)]
        for kind, found in runs.items()
    ]
    head = ["positions", "end of the low scales", *(f"{step} steps at the high" for step in shown(steps))]
    notebook.write("table.md", "Validation cross-entropy, nats a code.\n\n" + markdown(head, rows))
    drawn = []
    for kind in KINDS:
        drawn.append(Curve(kind, [(step, means[kind, step].value, means[kind, step].spread or 0.0) for step in steps]))
    title = f"After moving to the higher resolution, {seeds} seeds"
    notebook.write("positions.svg", chart(title, "steps", "validation cross-entropy, nats a code", drawn))
    print((notebook.folder / "table.md").read_text("utf-8"), end="")


def shown(steps: list[int]) -> list[int]:
    """The first of the steps, the last, and up to three between."""
    return [steps[i] for i in spread(len(steps), 5)]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments.positions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options(p)
    p.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help="a trained tokenizer/ folder")
    p.add_argument("--high", type=int, nargs="+", default=list(HIGH), metavar="P", help="the higher scales")
    p.add_argument("--high-steps", type=int, default=600, metavar="N", help="steps at the higher scales (default: 600)")
    p.add_argument("--every", type=int, default=50, metavar="N", help="steps between points of a curve (default: 50)")
    p.add_argument("--pictures", type=int, default=2000, metavar="N", help="to train on (default: 2000)")
    training_options(p, "a small transformer at the low scales")
    return p


if __name__ == "__main__":
    sys.exit(command(main, parser(), None))
