"""A picture of a batch as the bytes of its file, and a whole batch drawn in this process."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from hart_edge import __version__
from hart_edge.batch.prompts import Item
from hart_edge.bundle.settings import Settings
from hart_edge.bundle.verify import open_bundle
from hart_edge.engines.loading import load
from hart_edge.errors import InputError
from hart_edge.runtime.picture_metadata import PictureMetadata, save_png, used_settings
from hart_edge.runtime.pipeline import Pipeline
from hart_edge.runtime.prompt_tokenizer import tokenizer_of
from hart_edge.runtime.settings import check_settings


@dataclass(frozen=True)
class BatchPlan:
    """What a batch is drawn with. threads: of an operator, None for one a core."""

    bundle: Path
    settings: Settings
    threads: int | None = None

    def open(self) -> Pipeline:
        return load(self.bundle, threads=self.threads)


def check_batch(plan: BatchPlan, items: Sequence[Item], source: Path) -> dict[int, PictureMetadata]:
    """What the metadata of every picture is going to be, by its place. source: the file of prompts, for messages.

    Raises BundleError; InputError for a prompt that cannot be drawn, before the first is.
    """
    bundle = open_bundle(plan.bundle)
    tokenizer = tokenizer_of(bundle)
    if tokenizer is None:
        raise InputError(f"{plan.bundle}: expected a bundle with a text model, found one that takes a context array")
    used = used_settings(check_settings(bundle.manifest.sampling, plan.settings, speeds=bundle.manifest.plans))
    expected = {}
    for item in items:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tokenizer.encode(item.prompt)
        except InputError as error:
            raise InputError(f"{source}, line {item.line}: {error}") from error
        name, sha256 = bundle.manifest.name, bundle.sha256
        expected[item.place] = PictureMetadata(__version__, item.prompt, item.seed, used, name, sha256)
    return expected


def draw(pipeline: Pipeline, metadata: PictureMetadata, settings: Settings) -> bytes:
    """The file of a picture; the same bytes wherever it is drawn."""
    assert metadata.prompt is not None  # check_batch() lets no other pass
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a prompt that is cut is told once, when the batch is checked
        image = pipeline.generate(metadata.prompt, seed=metadata.seed, **settings)
    assert isinstance(image, Image.Image)  # of one prompt
    stream = io.BytesIO()
    save_png(image, stream, metadata)
    return stream.getvalue()


def draw_here(
    plan: BatchPlan, items: Sequence[Item], expected: Mapping[int, PictureMetadata]
) -> Iterator[tuple[int, bytes]]:
    """(place, file) of every item, one after the other in this process."""
    pipeline: Any = plan.open() if items else None
    for item in items:
        yield item.place, draw(pipeline, expected[item.place], plan.settings)
