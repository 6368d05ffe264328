"""What is judged: the reference with a checkpoint's weights, or a bundle. Prompts and seeds in, pictures out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hart_edge.bundle.settings import Settings, Speed, merged, over
from hart_edge.engines.loading import load
from hart_edge.errors import CheckpointError, InputError
from hart_edge.reference.checkpoint import Checkpoint
from hart_edge.reference.draw import draw_pictures
from hart_edge.reference.hart import HART
from hart_edge.reference.sampling import published_sampling
from hart_edge.reference.text_model import TextModel, load_text_model
from hart_edge.runtime.pipeline import Pipeline
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer
from hart_edge.runtime.settings import check_settings

BATCH = 8


class Subject(Protocol):
    name: str
    side: int  # of its pictures

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """A picture (side, side, 3) a prompt, in order. Raises HartEdgeError."""


class Reference:
    """The reference in PyTorch, float32, with the weights of a checkpoint that has a text model."""

    def __init__(self, name: str, hart: HART, text: TextModel, tokenizer: PromptTokenizer, settings: Settings) -> None:
        self.name, self.hart, self.text, self.tokenizer = name, hart, text, tokenizer
        self.side, self.settings = hart.image_size, settings

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        for first in range(0, len(prompts), BATCH):
            some = slice(first, first + BATCH)
            ids = np.concatenate([self.tokenizer.encode(prompt) for prompt in prompts[some]]).astype(np.int64)
            context, mask = self.text(torch.from_numpy(ids))
            yield from draw_pictures(self.hart, context, mask, seeds[some], self.settings)


class BundleSubject:
    """A bundle in the runtime, as a device would draw."""

    def __init__(self, name: str, pipeline: Pipeline, settings: Settings) -> None:
        self.name, self.pipeline, self.settings = name, pipeline, settings
        self.side = pipeline.manifest.image_size

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        for prompt, seed in zip(prompts, seeds, strict=True):
            yield np.asarray(self.pipeline.generate(prompt, seed=seed, **self.settings))


def reference_of(checkpoint: Checkpoint, settings: Settings) -> Reference:
    """settings: in place of the checkpoint's own, in the runtime's ranges. Raises CheckpointError, InputError."""
    folder, hart = checkpoint.folder, checkpoint.model
    if not checkpoint.has_text_model:
        raise CheckpointError(
            f"{folder}: expected text_model/, which prompts are read by, found none; copy it there, or judge "
            "reconstruction alone with --only reconstruction"
        )
    text, tokenizer = load_text_model(folder / "text_model", hart.config.context_token, PromptTokenizer.padding_with)
    vocab_size = hart.tokenizer_config.vocab_size
    own = over(published_sampling(len(hart.patch_nums), vocab_size), checkpoint.sampling)
    check_settings(own, settings, most=vocab_size, speeds=tuple(Speed))
    return Reference(str(folder), hart, text, tokenizer, merged(checkpoint.sampling, settings))


def open_bundle(folder: Path, settings: Settings, threads: int | None = None) -> BundleSubject:
    """Raises BundleError, EngineError, InputError."""
    pipeline = load(folder, threads=threads)
    if pipeline.manifest.tokenizer is None:
        raise InputError(
            f"{folder}: expected a bundle with a text model, found none; build it from a checkpoint with one"
        )
    check_settings(pipeline.manifest.sampling, settings, speeds=pipeline.manifest.plans)
    return BundleSubject(str(folder), pipeline, settings)
