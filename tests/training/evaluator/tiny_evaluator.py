"""Training of a tiny evaluator: 32 px, eight features, captions that name the colour of a square."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hart_edge.data.pictures import Pictures
from hart_edge.evaluation.evaluator import EvaluatorConfig
from hart_edge.training.captions import TextRecipe
from hart_edge.training.evaluator.recipe import EvaluatorRecipe
from hart_edge.training.evaluator.task import EvaluatorTask
from hart_edge.training.recipe import Optimisation

SIDE = 32
COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "black": (0, 0, 0)}
RECIPE = EvaluatorRecipe(
    Optimisation(steps=6, batch=4, learning_rate=5e-3, warmup=2, average=0.9, seed=5),
    EvaluatorConfig(SIDE, widths=(8, 16), tokens=6, text_width=8, embedding=8),
    TextRecipe(vocab_size=280, depth=1, num_heads=2, hidden=16),
    shift=2,
)


def changed(**optimisation: Any) -> EvaluatorRecipe:
    return dataclasses.replace(RECIPE, optimisation=dataclasses.replace(RECIPE.optimisation, **optimisation))


def pictures(count: int, seed: int = 0) -> Pictures:
    """Squares of a colour on white; the first caption names the colour, the second the place too."""
    random, images, captions = np.random.default_rng(seed), [], []
    for i in range(count):
        name = list(COLOURS)[i % len(COLOURS)]
        image = np.full((SIDE, SIDE, 3), 255, np.uint8)
        top, left = random.integers(0, SIDE // 2, 2)
        image[top : top + SIDE // 2, left : left + SIDE // 2] = COLOURS[name]
        images.append(image)
        captions.append((name, f"{name} square {i}"))
    return Pictures(np.stack(images), tuple(captions), tuple(f"{i:02d}.png" for i in range(count)))


def task(recipe: EvaluatorRecipe = RECIPE, count: int = 10) -> EvaluatorTask:
    return EvaluatorTask(recipe, pictures(count), pictures(8, seed=1))


def write_data(folder: Path, splits: dict[str, int], prompt: str = "{}") -> Path:
    """Write pictures() in the imagefolder layout, so many per split. prompt: a format string for a picture's number."""
    for seed, (name, count) in enumerate(splits.items()):
        (folder / name).mkdir(parents=True)
        made = pictures(count, seed)
        lines = ["file_name,text"]
        for i, (file, image) in enumerate(zip(made.names, made.images, strict=True)):
            Image.fromarray(image).save(folder / name / file)
            lines.append(f"{file},{prompt.format(i + 1)}")
        (folder / name / "metadata.csv").write_text("\n".join(lines) + "\n", "utf-8")
    return folder
