"""Attention to few keys: a scale sees the first scales, the one before it and its own, and none between.

How much of the cache do the last scales need? The reference draws the same prompts with all keys and with these, at the
speeds exact and fast. OUT has table.md and results.json; after an interruption the same command resumes.

    python -m benchmarks.experiments.sparse_attention --data data/emoji --evaluator runs/judge/evaluator --out runs/keys
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.dial import all_keys, multiply_accumulates
from benchmarks.experiments.notebook import Notebook, command, markdown, options
from benchmarks.experiments.paired import HEAD, OTHER, Draw, cells_of, compare, seeds_of
from hart_edge.bundle.settings import Settings, Speed, merged
from hart_edge.data.pictures import read_pictures
from hart_edge.evaluation.evaluate import Evaluation, split_of
from hart_edge.evaluation.evaluator import open_evaluator
from hart_edge.evaluation.subjects import Reference, reference_of
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.hart import HART
from hart_edge.reference.presets import PRESETS, SHIPPED_MODEL, configs
from hart_edge.reference.transformer import Cache, Transformer

FIRST = 3  # scales, the context among them, that every scale sees
FEW = ", few keys"
SPEEDS = (Speed.EXACT, Speed.FAST)


class FewKeys(Transformer):
    """A transformer whose scales see few keys. The cache that it hands on has those of all scales."""

    def __init__(self, hart: HART) -> None:
        """hart: whose weights it has."""
        super().__init__(hart.config, hart.tokenizer_config.vocab_size, hart.tokenizer_config.z_channels)
        self.load_state_dict(hart.transformer.state_dict())
        self.requires_grad_(False).eval()
        self._tokens: list[int] = []  # of the scales of this picture so far

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        modulation: Tensor | None = None,
        past: Cache | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        if past is None:
            self._tokens.clear()
            hidden, present = super().forward(x, cos, sin, modulation, None, mask)
        else:
            rows = torch.tensor(seen(self._tokens))
            few = [(key[:, :, rows], value[:, :, rows]) for key, value in past]
            hidden, own = super().forward(x, cos, sin, modulation, few, mask)
            present = [
                (torch.cat([key, new_key[:, :, len(rows) :]], 2), torch.cat([value, new_value[:, :, len(rows) :]], 2))
                for (key, value), (new_key, new_value) in zip(past, own, strict=True)
            ]
        self._tokens.append(x.shape[1])
        return hidden, present


def seen(tokens: Sequence[int]) -> list[int]:
    """Which of the cached rows the next scale sees. tokens: of the scales that are cached."""
    first, every = sum(tokens[:FIRST]), sum(tokens)
    return [*range(first), *range(max(first, every - tokens[-1]), every)]


def few_keys(tokens: Sequence[int], scale: int) -> int:
    """As benchmarks.dial.all_keys()."""
    return len(seen(tokens[:scale])) + tokens[scale] if scale > 0 else all_keys(tokens, scale)


def main(a: argparse.Namespace) -> None:
    judge, checkpoint = open_evaluator(a.evaluator), load_checkpoint(a.checkpoint)
    reference = reference_of(checkpoint, Settings())
    transformers = {"": reference.hart.transformer, FEW: FewKeys(reference.hart)}
    split = split_of("validation", read_pictures(a.data / "validation", reference.side), a.pictures)
    asked = {
        "checkpoint": str(a.checkpoint), "evaluator": judge.sha256, "data": split.fingerprint,
        "pictures": len(split.prompts),
    }  # fmt: skip
    notebook, evaluation = Notebook(a.out, asked), Evaluation(judge)
    for seed in range(a.seeds):
        ways = ways_of(reference, transformers, seed, len(split.prompts))
        notebook.measure("keys", seed, partial(compare, evaluation, split, "keys", ways))
    runs = [notebook.runs[f"keys, seed {seed}"] for seed in range(a.seeds)]
    rows = [[way, *cells_of([run[way] for run in runs], first=way == Speed.EXACT)] for way in runs[0]]
    titles = [f"{speed}{keys}" for speed in SPEEDS for keys in transformers][1:]
    arithmetic = markdown(("", "exact, GMAC", *(f"{title}, of exact" for title in titles)), [*arithmetic_rows()])
    notebook.write("table.md", arithmetic + "\n" + markdown(("", *HEAD), rows))
    print((notebook.folder / "table.md").read_text("utf-8"), end="")


def ways_of(reference: Reference, transformers: dict[str, Transformer], run: int, count: int) -> dict[str, Draw]:
    """Both speeds with both transformers and the same seeds, and exact with others."""
    seeds, others = seeds_of(run, count), seeds_of(run, count, other=True)

    def draw(
        prompts: Sequence[str], speed: Speed, transformer: Transformer, seeds: Sequence[int]
    ) -> Iterator[NDArray[np.uint8]]:
        reference.hart.transformer = transformer
        reference.settings = merged(own, Settings(speed=speed))
        return reference.draw(prompts, seeds)

    own = reference.settings
    ways: dict[str, Draw] = {
        f"{speed}{keys}": partial(draw, speed=speed, transformer=transformer, seeds=seeds)
        for speed in SPEEDS
        for keys, transformer in transformers.items()
    }
    return ways | {OTHER: partial(draw, speed=Speed.EXACT, transformer=transformers[""], seeds=others)}


def arithmetic_rows() -> Iterator[list[str]]:
    """Multiply-accumulates of a picture of each published shape, text model not counted."""
    for preset in PRESETS:
        shape = configs(preset)
        totals = [multiply_accumulates(*shape, speed, keys) for speed in SPEEDS for keys in (all_keys, few_keys)]
        yield [preset, f"{totals[0] / 1e9:,.0f}", *(f"{total / totals[0]:.0%}" for total in totals[1:])]


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments.sparse_attention",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options(p)
    p.add_argument("--evaluator", type=Path, required=True, metavar="DIR", help="the trained evaluator/ folder")
    p.add_argument("--checkpoint", type=Path, default=SHIPPED_MODEL, metavar="DIR", help="default: the shipped model")
    p.add_argument("--pictures", type=int, default=300, metavar="N", help="prompts a way (default: 300)")
    return p


if __name__ == "__main__":
    sys.exit(command(main, parser(), None))
