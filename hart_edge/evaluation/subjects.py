"""What is judged: the reference with a checkpoint's weights, or a bundle. Prompts and seeds in, pictures out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hart_edge.bundle.manifest import MOST_GUIDANCE
from hart_edge.engines.loading import load
from hart_edge.errors import CheckpointError, InputError
from hart_edge.reference.checkpoint import Checkpoint
from hart_edge.reference.draw import draw_pictures
from hart_edge.reference.hart import HART, SampleSettings
from hart_edge.reference.text_model import TextModel, load_text_model
from hart_edge.runtime.pipeline import Pipeline
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer
from hart_edge.runtime.settings import check_settings

BATCH = 8


@dataclass(frozen=True)
class Sampling:
    """How codes are drawn; None takes the subject's own default."""

    cfg_scale: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    smooth: bool | None = None


class Subject(Protocol):
    name: str
    side: int  # of its pictures

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """A picture (side, side, 3) a prompt, in order. Raises HartEdgeError."""


class Reference:
    """The reference in PyTorch, float32, with the weights of a checkpoint that has a text model."""

    def __init__(
        self, name: str, hart: HART, text: TextModel, tokenizer: PromptTokenizer, settings: SampleSettings
    ) -> None:
        self.name, self.hart, self.text, self.tokenizer = name, hart, text, tokenizer
        self.side, self.settings = hart.image_size, settings

    @torch.no_grad()
    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        for first in range(0, len(prompts), BATCH):
            some = slice(first, first + BATCH)
            ids = np.concatenate([self.tokenizer.encode(prompt) for prompt in prompts[some]]).astype(np.int64)
            yield from draw_pictures(self.hart, *self.text(torch.from_numpy(ids)), list(seeds[some]), self.settings)


class BundleSubject:
    """A bundle in the runtime, as a device would draw."""

    def __init__(self, name: str, pipeline: Pipeline, sampling: Sampling) -> None:
        self.name, self.pipeline, self.sampling = name, pipeline, asdict(sampling)
        self.side = pipeline.manifest.image_size

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        for prompt, seed in zip(prompts, seeds, strict=True):
            yield np.asarray(self.pipeline.generate(prompt, seed=seed, **self.sampling))


def reference_of(checkpoint: Checkpoint, sampling: Sampling) -> Reference:
    """Raises CheckpointError, InputError."""
    folder, hart = checkpoint.folder, checkpoint.model
    if not checkpoint.has_text_model:
        raise CheckpointError(
            f"{folder}: expected text_model/, which prompts are read by, found none; copy it there, or judge "
            "reconstruction alone with --only reconstruction"
        )
    text, tokenizer = load_text_model(folder / "text_model", hart.config.context_token, PromptTokenizer.padding_with)
    settings = settings_of(sampling, checkpoint.sampling, hart.tokenizer_config.vocab_size)
    return Reference(str(folder), hart, text, tokenizer, settings)


def open_bundle(folder: Path, sampling: Sampling, threads: int | None = None) -> BundleSubject:
    """Raises BundleError, EngineError, InputError."""
    pipeline = load(folder, threads=threads)
    if pipeline.manifest.tokenizer is None:
        raise InputError(
            f"{folder}: expected a bundle with a text model, found none; build it from a checkpoint with one"
        )
    check_settings(pipeline.manifest.sampling, **asdict(sampling))
    return BundleSubject(str(folder), pipeline, sampling)


def settings_of(sampling: Sampling, own: SampleSettings, vocab_size: int) -> SampleSettings:
    """What was asked for over the checkpoint's own, in the ranges of the runtime's. Raises InputError."""
    cfg_scale = own.cfg_scale if sampling.cfg_scale is None else sampling.cfg_scale
    if not 0 <= cfg_scale <= MOST_GUIDANCE:
        raise InputError(f"cfg_scale: expected 0 to {MOST_GUIDANCE:g}, found {cfg_scale!r}; 0 turns guidance off")
    if sampling.top_k is not None and not 1 <= sampling.top_k <= vocab_size:
        raise InputError(f"top_k: expected 1 to {vocab_size}, the number of codes, found {sampling.top_k}")
    top_p = own.top_p if sampling.top_p is None else sampling.top_p
    if not 0 < top_p <= 1:
        raise InputError(f"top_p: expected above 0 and at most 1, found {top_p!r}; 1 keeps every candidate")
    smooth = own.smooth if sampling.smooth is None else sampling.smooth
    return SampleSettings(cfg_scale, sampling.top_k, top_p, smooth)
