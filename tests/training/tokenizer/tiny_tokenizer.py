"""Training of a tiny tokenizer: 32 px, two scales, sixteen codes; a step takes some milliseconds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from PIL import Image

from hart_edge.reference.config import TokenizerConfig
from hart_edge.training.loop import Habits, train
from hart_edge.training.recipe import Optimisation
from hart_edge.training.tokenizer.codebook import CodebookCare
from hart_edge.training.tokenizer.recipe import TokenizerRecipe
from hart_edge.training.tokenizer.task import TokenizerTask

SIDE = 32
CONFIG = TokenizerConfig((1, 2), vocab_size=16, z_channels=4, ch=8, ch_mult=(1, 1, 1, 1, 2), norm_groups=4)
RECIPE = TokenizerRecipe(
    Optimisation(steps=6, batch=4, learning_rate=2e-3, warmup=2, average=0.9, seed=5),
    CONFIG,
    side=SIDE,
    codebook=CodebookCare(start=2, every=2, dead_below=0.5),
)
QUIET = Habits(log_seconds=1e9, save_seconds=1e9, look_steps=10**9)


def pictures(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Rectangles of one colour on white: (count, SIDE, SIDE, 3)"""
    random = np.random.default_rng(seed)
    images = np.full((count, SIDE, SIDE, 3), 255, np.uint8)
    for image in images:
        top, left = random.integers(0, SIDE // 2, 2)
        height, width = random.integers(4, SIDE // 2, 2)
        image[top : top + height, left : left + width] = random.integers(0, 256, 3)
    return images


def recipe(**optimisation: Any) -> TokenizerRecipe:
    """RECIPE with some of its optimisation changed."""
    return dataclasses.replace(RECIPE, optimisation=dataclasses.replace(RECIPE.optimisation, **optimisation))


def task(r: TokenizerRecipe = RECIPE, train_pictures: int = 10) -> TokenizerTask:
    return TokenizerTask(r, pictures(train_pictures), pictures(4, seed=1), "made up")


def run(t: TokenizerTask, folder: Path, habits: Habits = QUIET, **more: Any) -> int:
    return train(t, folder, Accelerator(cpu=True), habits, **more)


def write_data(folder: Path, train_pictures: int = 10) -> Path:
    """train/ and validation/ of pictures() in the imagefolder layout."""
    for part, count, seed in (("train", train_pictures, 0), ("validation", 4, 1)):
        (folder / part).mkdir(parents=True)
        lines = ["file_name,text"]
        for i, image in enumerate(pictures(count, seed)):
            Image.fromarray(image).save(folder / part / f"{i:02d}.png")
            lines.append(f"{i:02d}.png,picture {i}")
        (folder / part / "metadata.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder
