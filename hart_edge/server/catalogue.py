"""The bundles that a server has, and what may be asked of them.

In: folders. Out: a Served for each, which turns a request into an Order, or an InputError that says what is wrong with
it, before anything waits for a worker.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hart_edge import __version__
from hart_edge.bundle.card import PromptHints, read_hints
from hart_edge.bundle.manifest import Manifest
from hart_edge.bundle.plan import tokens_of
from hart_edge.bundle.settings import SETTINGS, Settings, Speed, kind, range_of
from hart_edge.bundle.verify import open_bundle
from hart_edge.errors import InputError
from hart_edge.runtime.picture_metadata import PictureMetadata, used_settings
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer, tokenizer_of
from hart_edge.runtime.random import check_seed
from hart_edge.runtime.settings import check_settings
from hart_edge.server.encoding import Encoding
from hart_edge.server.jobs import Order

RANDOM_SEEDS = 2**32  # seeds that are drawn by lot stay below, so that JavaScript and other clients keep them exact


@dataclass(frozen=True)
class Served:
    """A bundle that can be drawn with. hints: those of its card."""

    folder: Path
    manifest: Manifest
    sha256: str
    hints: PromptHints
    tokenizer: PromptTokenizer = field(repr=False)

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def size(self) -> str:
        return f"{self.manifest.image_size}x{self.manifest.image_size}"

    @property
    def scales(self) -> int:
        return len(self.manifest.patch_nums)

    def side(self, scale: int) -> int:
        """Tokens along a side of a scale."""
        return self.manifest.patch_nums[scale]

    def order(
        self,
        prompt: str,
        seed: int | None,
        settings: Settings,
        *,
        previews: frozenset[int] = frozenset(),
        encoding: Encoding | None = None,
    ) -> Order:
        """What is to be drawn. seed: None for one drawn by lot. Raises InputError."""
        sampling = check_settings(self.manifest.sampling, settings, speeds=self.manifest.plans)
        chosen = secrets.randbelow(RANDOM_SEEDS) if seed is None else check_seed(seed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.tokenizer.encode(prompt)
        metadata = PictureMetadata(__version__, prompt, chosen, used_settings(sampling), self.name, self.sha256)
        notes = tuple(str(warning.message) for warning in caught)
        return Order(metadata, settings, encoding or Encoding(), previews, notes)

    def words(self, prompt: str) -> int:
        """Tokens of a prompt that the model reads."""
        return min(len(self.tokenizer.ids(prompt)), self.manifest.context_tokens)

    def tokens(self, order: Order) -> tuple[int, ...]:
        """How many tokens of each scale an order computes."""
        return tokens_of(self.manifest.plans[Speed(order.metadata.settings["speed"])], self.manifest.patch_nums)

    def evenly(self, count: int) -> frozenset[int]:
        """`count` of the scales before the last, evenly spread."""
        before = self.scales - 1
        return frozenset((2 * number + 1) * before // (2 * count) for number in range(min(count, before)))

    def setting_schemas(self) -> dict[str, dict[str, Any]]:
        """A JSON schema for each setting, with this bundle's default."""
        used = used_settings(self.manifest.sampling)
        schemas: dict[str, dict[str, Any]] = {}
        for name, setting in SETTINGS.items():
            schema: dict[str, Any] = {"description": setting.meaning, "default": used[name]}
            if kind(name) is bool:
                schema["type"] = "boolean"
            elif kind(name) is Speed:
                schema |= {"type": "string", "enum": [str(speed) for speed in self.manifest.plans]}
            elif kind(name) is int:
                schema |= {"type": "integer", "minimum": 1, "maximum": max(getattr(self.manifest.sampling, name))}
            else:
                among = setting.asked or range_of(name)
                lowest = "exclusiveMinimum" if among.above else "minimum"
                schema |= {"type": "number", lowest: among.low, "maximum": among.high}
            schemas[name] = schema
        return schemas


class Catalogue:
    """The bundles of a server by name; the first is the one that is meant where none is named."""

    def __init__(self, served: Sequence[Served]) -> None:
        self._served = {each.name: each for each in served}
        self.first = served[0]

    def __iter__(self) -> Any:
        return iter(self._served.values())

    def __contains__(self, name: object) -> bool:
        return name in self._served

    def named(self, name: str | None) -> Served:
        """The bundle of a name. Raises InputError for one that is not served."""
        if name is None:
            return self.first
        if name not in self._served:
            raise InputError(f"bundle: expected one of {', '.join(self._served)}, found {name!r}")
        return self._served[name]

    def meant(self, name: object) -> Served:
        """The bundle of a name, and the first for any other name."""
        return self._served.get(name, self.first) if isinstance(name, str) else self.first

    @property
    def folders(self) -> Mapping[str, Path]:
        return {each.name: each.folder for each in self}


def open_catalogue(folders: Sequence[Path]) -> Catalogue:
    """Verify the bundles and read what is needed to check requests. Raises BundleError, InputError."""
    served: dict[str, Served] = {}
    for folder in folders:
        bundle = open_bundle(folder)
        m = bundle.manifest
        tokenizer = tokenizer_of(bundle)
        if tokenizer is None:
            raise InputError(
                f"{folder}: expected a bundle with a text model, found one that takes a context array, which no client "
                "of a server has; build from a checkpoint with text_model/"
            )
        if m.name in served:
            raise InputError(
                f"{folder}: expected bundles of different names, found {m.name!r} twice; serve one of them"
            )
        served[m.name] = Served(bundle.folder, m, bundle.sha256, read_hints(bundle.folder), tokenizer)
    return Catalogue(list(served.values()))
