"""Training of a tiny transformer: 32 px, two scales, three captions per picture; a step takes milliseconds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from hart_edge.data.pictures import Pictures
from hart_edge.evaluation.reconstruction import to_range
from hart_edge.reference.config import TransformerConfig
from hart_edge.training.captions import Text, TextRecipe
from hart_edge.training.recipe import Optimisation
from hart_edge.training.tokenizer.codebook import place
from hart_edge.training.tokenizer.recipe import Tokenizer, publish_tokenizer
from hart_edge.training.transformer.recipe import TransformerRecipe
from hart_edge.training.transformer.setup import (
    examples_of,
    fingerprint_of,
    new_generator,
    text_of,
    with_tokenizer,
)
from hart_edge.training.transformer.task import TransformerTask
from tests.training.tokenizer import tiny_tokenizer

CONFIG = TransformerConfig(
    (1, 2), 16, 2, 2, context_token=6, context_dim=8, diff_width=12, diff_depth=2, num_sampling_steps=2, shared_aln=True
)
RECIPE = TransformerRecipe(
    Optimisation(steps=6, batch=4, learning_rate=5e-3, warmup=2, average=0.9, seed=5),
    CONFIG,
    side=32,
    text=TextRecipe(vocab_size=280, depth=1, num_heads=2, hidden=16),
    token_drop=0.5,
)


def changed(recipe: TransformerRecipe = RECIPE, **values: Any) -> TransformerRecipe:
    """The recipe with fields changed, whichever part they are in."""
    for part in ("optimisation", "transformer", "text"):
        old = getattr(recipe, part)
        own = {k: values.pop(k) for k in list(values) if k in {f.name for f in dataclasses.fields(old)}}
        values[part] = dataclasses.replace(old, **own)
    return dataclasses.replace(recipe, **values)


def filled(module: nn.Module, seed: int = 0, spread: float = 0.3) -> nn.Module:
    """Add random numbers to every parameter, so that every part affects the result."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * spread)
    return module


def tokenizer(seed: int = 0, **config: Any) -> Tokenizer:
    """A random tokenizer whose codes are initialised from the latents of invented pictures."""
    recipe = dataclasses.replace(tiny_tokenizer.RECIPE, tokenizer=dataclasses.replace(tiny_tokenizer.CONFIG, **config))
    torch.manual_seed(seed)
    model = filled(Tokenizer(recipe), seed, 0.05).eval().requires_grad_(False)
    place(model.quantizer, model.autoencoder.encode(to_range(tiny_tokenizer.pictures(16, 3))), np.random.default_rng(0))
    return model


def publish(folder: Path, model: Tokenizer) -> Path:
    """FOLDER/tokenizer/"""
    publish_tokenizer(folder, model.config, model, {})
    return folder / "tokenizer"


def pictures(count: int, seed: int = 0) -> Pictures:
    captions = tuple((f"picture {i}", f"a picture numbered {i}", f"Shape {i % 3}") for i in range(count))
    return Pictures(tiny_tokenizer.pictures(count, seed), captions, tuple(f"{i}.png" for i in range(count)))


def task(
    folder: Path, recipe: TransformerRecipe = RECIPE, count: int = 10, text: Text | None = None
) -> TransformerTask:
    """The task on invented pictures. folder: where the tokenizer and the codes go."""
    model, accelerator = tokenizer(), Accelerator(cpu=True)
    hart = with_tokenizer(recipe, model)
    text = text_of(recipe, pictures(count), None) if text is None else text
    train, validation = (
        examples_of(accelerator, hart, text, each, folder / name, mirror=recipe.mirror > 0)
        for name, each in (("train", pictures(count)), ("validation", pictures(4, 1)))
    )
    generator, fingerprint = new_generator(recipe, model, text), fingerprint_of(train, model, text)
    return TransformerTask(recipe, generator, train, validation, text, hart, publish(folder, model), fingerprint)
