"""The folder of a batch: pictures that say how they were drawn, and metadata.jsonl, which training and eval read.

In: what is to be drawn. Out: which of it is still to be drawn, and files that are either whole or not there. A picture
of an earlier run is known by its own metadata, so a batch that was killed goes on where it was, whatever killed it.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hart_edge.batch.prompts import Item
from hart_edge.errors import HartEdgeError, InputError, border
from hart_edge.runtime.picture_metadata import PictureMetadata, read_metadata

METADATA = "metadata.jsonl"
PART = ".part"  # the ending of a file that is not whole


class BatchFolder:
    """expected: what the metadata of each picture is going to be, by the item's place."""

    def __init__(self, folder: Path, expected: Mapping[int, PictureMetadata]) -> None:
        self.folder, self.expected = folder, expected

    def prepare(self, items: Sequence[Item]) -> list[Item]:
        """Make the folder; the items that are still to be drawn.

        Raises InputError where nothing can be written, and where a picture of another prompt or bundle has the name of
        one of ours.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except (OSError, ValueError) as error:
            raise InputError(f"--out {self.folder}: no file can be written there ({error}); name another") from error
        return [item for item in items if not self._is_there(item)]

    def _is_there(self, item: Item) -> bool:
        file = self.folder / item.file_name
        if not file.exists():
            return False
        found, expected = read_metadata(file), self.expected[item.place]
        if found != expected:
            ours, theirs = asdict(expected), asdict(found)
            name = next(name for name in ours if ours[name] != theirs[name])
            raise InputError(
                f"{file}: expected a picture of this batch, found one with {name} {theirs[name]!r} where this has "
                f"{ours[name]!r}; name another --out, or the same prompts, bundle and settings"
            )
        return True

    def write(self, item: Item, picture: bytes) -> None:
        """Write a picture beside its place and rename it. Raises HartEdgeError."""
        self._write(item.file_name, picture)

    def finish(self, items: Sequence[Item]) -> None:
        """Write metadata.jsonl, in the order of the prompts: only when all pictures are there."""
        rows = (json.dumps(self.row(item), ensure_ascii=False) + "\n" for item in items)
        self._write(METADATA, "".join(rows).encode())

    def row(self, item: Item) -> dict[str, Any]:
        """A line of metadata.jsonl: file_name and text, and how the picture was drawn."""
        metadata = self.expected[item.place]
        told = {"seed": metadata.seed, **metadata.settings, "bundle": metadata.bundle}
        return {"file_name": item.file_name, "text": item.prompt, **told, "bundle_sha256": metadata.bundle_sha256}

    def _write(self, name: str, data: bytes) -> None:
        target, part = self.folder / name, self.folder / f".{name}{PART}"
        with border(HartEdgeError, target, "could not be written", "the same command goes on from there"):
            try:
                part.write_bytes(data)
                part.replace(target)
            finally:
                with contextlib.suppress(OSError):
                    part.unlink(missing_ok=True)
