"""How a picture was drawn, written into its PNG file and read back: whoever has the file can draw the picture again.

In: a prompt, a seed, and the settings that were used. Out: an iTXt chunk `hart-edge` of JSON, which generate --like,
the server's page and a batch read; and a tEXt chunk `parameters`, which other programs for generated pictures show.
docs/cli.md specifies both. Every value is one that was used: defaults are resolved, nothing is left open.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self, cast

import numpy as np
from PIL import Image, PngImagePlugin

from hart_edge.bundle.settings import PER_SCALE, SETTINGS, Sampling, Settings
from hart_edge.errors import READING_FAULTS, InputError
from hart_edge.runtime.context import Context
from hart_edge.runtime.random import check_seed

KEYWORD, PARAMETERS = "hart-edge", "parameters"
AGAIN = "expected a PNG file as hart-edge writes it"


@dataclass(frozen=True)
class PictureMetadata:
    """What makes a picture.

    prompt: None where a context array took its place, which then has a context_sha256. settings: a value for each
    setting of bundle/settings.py; a list where the scales of the bundle differ. bundle_sha256: of its manifest, which
    holds the sums of all other files. version: of hart-edge.
    """

    version: str
    prompt: str | None
    seed: int
    settings: Mapping[str, Any]
    bundle: str
    bundle_sha256: str
    context_sha256: str | None = None

    def to_json(self) -> str:
        told = {name: value for name, value in asdict(self).items() if name != "context_sha256" or value is not None}
        return json.dumps(told, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError for what to_json() does not write."""
        values = json.loads(text)
        if not isinstance(values, dict) or not isinstance(values.get("settings"), dict):
            raise ValueError("no settings")
        known = {name: values.get(name) for name in cls.__dataclass_fields__}
        given = [name for name in ("prompt", "context_sha256") if known[name] is not None]
        texts = ["version", "bundle", "bundle_sha256", *given]
        if any(not isinstance(known[name], str) for name in texts):
            raise ValueError(f"expected text as {', '.join(texts)}")
        if not given:
            raise ValueError("no prompt")
        check_seed(known["seed"])
        return cls(**cast(dict[str, Any], known))

    def in_words(self) -> str:
        """The lines that other programs show: the prompt, and one of names and values."""
        facts = {"Seed": self.seed, **self.settings, "Model": self.bundle, "Model hash": self.bundle_sha256[:10]}
        told = ", ".join(f"{name}: {value}" for name, value in facts.items())
        prompt = (self.prompt or "").replace("\0", " ")  # which a chunk of text may not hold
        return f"{prompt}\n{told}, Version: hart-edge {self.version}"


def used_settings(sampling: Sampling) -> dict[str, Any]:
    """What a picture is drawn with: a value for every setting, a list where scales differ."""
    used: dict[str, Any] = {}
    for name in SETTINGS:
        value = getattr(sampling, name)
        if name in PER_SCALE:
            value = value[0] if len(set(value)) == 1 else list(value)
        used[name] = value
    return used


def asked_settings(used: Mapping[str, Any], own: Sampling) -> Settings:
    """The settings to ask a bundle for, so that it draws with those that were used. own: the bundle's.

    Raises InputError where a caller cannot ask for them.
    """
    asked: dict[str, Any] = {}
    for name, value in used.items():
        if name not in SETTINGS:
            raise InputError(
                f"the picture was drawn with a setting {name!r}, which this version lacks; update hart-edge"
            )
        if isinstance(value, list):
            if value != list(getattr(own, name)):
                raise InputError(
                    f"the picture was drawn with {name} {value}, one for each scale, and this bundle's own are "
                    f"{list(getattr(own, name))}; use the bundle that drew it, or pass one value for all scales"
                )
            continue
        asked[name] = value
    return cast(Settings, asked)


def context_sha256(context: Context) -> str:
    """Of the arrays as they are drawn from: float32 tokens and the mask."""
    digest = hashlib.sha256(np.ascontiguousarray(context.tokens, "<f4").tobytes())
    digest.update(np.ascontiguousarray(context.mask, np.bool_).tobytes())
    return digest.hexdigest()


def png_chunks(metadata: PictureMetadata) -> PngImagePlugin.PngInfo:
    """For the argument pnginfo of Pillow's save()."""
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(KEYWORD, metadata.to_json())
    chunks.add_text(PARAMETERS, metadata.in_words())
    return chunks


def save_png(image: Image.Image, stream: IO[bytes], metadata: PictureMetadata | None = None) -> None:
    """Write a PNG file; the same bytes for the same picture and metadata."""
    image.save(stream, "PNG", pnginfo=None if metadata is None else png_chunks(metadata))


def read_metadata(file: Path) -> PictureMetadata:
    """How the picture in a PNG file was drawn. Raises InputError where the file does not say."""
    try:
        with Image.open(file, formats=["PNG"]) as image:
            text = image.info.get(KEYWORD)
    except READING_FAULTS:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file; {AGAIN}") from error
    except Exception as error:  # Pillow raises nearly anything
        raise InputError(f"{file}: {AGAIN}, found something else ({error})") from error
    if not isinstance(text, str):
        raise InputError(
            f"{file}: {AGAIN}, with a note of how it was drawn; found none: a command or the server writes one, "
            "image.save() in Python and other programs do not"
        )
    try:
        return PictureMetadata.from_json(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: {AGAIN}, found a note that cannot be read ({error})") from error
