"""Write a bundle: the folder of docs/bundle.md, complete or not at all.

In: graphs or engines, constants, and everything the manifest states. Out: the folder under its final name. All is
written to a hidden folder beside it first, which takes the name at the end. Whatever makes a bundle writes it with
`write_bundle`:

    with write_bundle(out) as writer:
        (writer.folder / "graphs").mkdir()
        ...                                                # graphs, at paths below writer.folder
        writer.copy(checkpoint / "tokenizer.json", "tokenizer.json")
        constants = writer.constants(arrays)
        manifest = writer.finish(Manifest(..., files={}, constants=constants), card)
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.card import CARD_FILE
from hart_edge.bundle.files import list_files
from hart_edge.bundle.manifest import (
    CONSTANT_ALIGNMENT,
    CONSTANTS_FILE,
    MANIFEST_FILE,
    MOST_NAME,
    RANDOM_ENDING,
    Constant,
    Dtype,
    Manifest,
    to_json,
)
from hart_edge.errors import LACKING, BuildError, border, told
from hart_edge.staging import OWNER_FILE, FolderInUseError, claimed, hidden_name, staged_folder, sweep, take_name


class BundleWriter:
    """A bundle that does not have its name yet. Files may be written below `folder` directly; `finish` lists them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finished = False

    def write(self, name: str, data: bytes) -> None:
        """name: path inside the bundle, as the manifest lists it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def copy(self, source: Path, name: str) -> None:
        """name: path inside the bundle, as the manifest lists it."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, path)

    def constants(self, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Constant]:
        """Write constants.bin, every tensor aligned, and return where each lies."""
        entries = {}
        with (self.folder / CONSTANTS_FILE).open("wb") as file:
            for name, array in arrays.items():
                file.write(b"\0" * (-file.tell() % CONSTANT_ALIGNMENT))
                entries[name] = Constant(Dtype(array.dtype.name), array.shape, file.tell())
                file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
        return entries

    def keep_only(self, names: Collection[str]) -> None:
        """Delete every other file: what an earlier, unfinished try with other settings left behind."""
        for path in sorted(self.folder.rglob("*"), reverse=True):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and name not in names and name != OWNER_FILE:
                path.unlink()

    def finish(self, manifest: Manifest, card: str | None = None) -> Manifest:
        """Write the card and the manifest, which is returned as written: with every file of the folder listed.

        card: None where the folder has one already. Raises BundleError for a manifest that no reader would take.
        """
        if card is not None:
            self.write(CARD_FILE, card.encode())
        files = {name: entry for name, entry in list_files(self.folder).items() if name != OWNER_FILE}
        manifest = dataclasses.replace(manifest, files=files)
        self.write(MANIFEST_FILE, to_json(manifest))
        self.finished = True
        return manifest


@contextlib.contextmanager
def write_bundle(final: Path, *, resume: bool = False) -> Iterator[BundleWriter]:
    """A writer whose folder becomes `final` when the block ends well, and vanishes when it does not.

    A bundle that was there is replaced; any other non-empty folder is refused. resume: write to
    unfinished_folder(final) and leave it there when the block fails, so that the next try finds what was finished.
    What earlier writers left here that were killed is removed. Raises BuildError where the disk is full, the place is
    not writable, or a library fails; then `final` is as it was.
    """
    with _failures(final, resume):
        require_free(final)
        with _unfinished(final) if resume else staged_folder(final) as folder:
            writer = BundleWriter(folder)
            yield writer
            assert writer.finished, "a bundle must have a manifest"
            take_name(folder, final)


@contextlib.contextmanager
def _failures(final: Path, resume: bool) -> Iterator[None]:
    """The border of writing a bundle."""
    left = "what was finished is kept" if resume else "nothing was left behind"
    room = "make room and run this again" if resume else f"{left}. Make room or choose another --out"
    with border(BuildError, final, "the bundle cannot be made", f"{left}; python -X dev shows where", room=room):
        try:
            yield
        except FolderInUseError as error:
            raise BuildError(f"{error}; wait until it has ended, or choose another --out") from error
        except OSError as error:
            if error.errno in LACKING:
                raise
            problem = "the bundle cannot be written"
            raise BuildError(told(error, final, problem, "choose another --out", room)) from error


@contextlib.contextmanager
def _unfinished(final: Path) -> Iterator[Path]:
    """The folder of unfinished_folder(), which stays when the block fails."""
    final.parent.mkdir(parents=True, exist_ok=True)
    sweep(final)
    folder = unfinished_folder(final)
    folder.mkdir(exist_ok=True)
    with claimed(folder):
        yield folder


def unfinished_folder(final: Path) -> Path:
    """Where a bundle lies that is written with resume, until it is finished."""
    return final.parent / hidden_name(final.parent, final.name, ".engines")


def require_free(final: Path) -> None:
    """Raise BuildError where something lies under that name that is no bundle."""
    if final.exists() and not (final / MANIFEST_FILE).is_file() and (not final.is_dir() or any(final.iterdir())):
        raise BuildError(f"{final}: exists and is not a bundle, so it is left alone; choose another --out")


def bundle_name(out: Path, *, random: bool = False) -> str:
    """A manifest's name, made from the folder's. random: the weights are, and only such a name ends in -random."""
    ending = RANDOM_ENDING if random else ""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", out.name).lstrip("._-")
    name = re.sub(f"({RANDOM_ENDING})+$", "", name)[: MOST_NAME - len(ending)] or "bundle"
    return name + ending
