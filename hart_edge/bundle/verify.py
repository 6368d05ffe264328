"""A bundle folder, verified: a path in, a Bundle out whose files may be given to an engine library.

Everything is checked before any other library opens a file: the manifest, that no path or link leads out of
the folder, the size and SHA-256 of every file, and the inside of every graph. Source of the rules:
docs/bundle.md.
"""

from __future__ import annotations

import logging
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.files import sha256_of
from hart_edge.bundle.manifest import CONSTANTS_FILE, MANIFEST_FILE, MOST_MANIFEST_BYTES, FileEntry, Manifest, parse
from hart_edge.bundle.onnx_guard import check_graph
from hart_edge.errors import READING_FAULTS, BundleError, bordered
from hart_edge.units import size

log = logging.getLogger(__name__)

BUILD = "build one with python -m export.build --precision int8"
REPAIR = "copy the bundle again or rebuild it with python -m export.build"
LONG = 200 * 2**20  # bytes; a bundle of this size takes long enough to say so


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. The files must not change while it is in use."""

    folder: Path
    manifest: Manifest
    _constants: NDArray[np.uint8] = field(repr=False, compare=False)

    def path(self, name: str) -> Path:
        """The file that manifest.files lists as `name`; BundleError for any other name."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.folder}: expected a name in manifest.files, found {name!r}; {REPAIR}")
        return self.folder / name

    def constant(self, name: str) -> NDArray[Any]:
        """The constant `name`: read-only, mapped from constants.bin, dtype and shape as in the manifest."""
        entry = self.manifest.constants.get(name)
        if entry is None:
            raise BundleError(f"{self.folder}: expected a name in constants, found {name!r}; {REPAIR}")
        raw = self._constants[entry.offset : entry.offset + entry.nbytes]
        return raw.view(np.dtype(entry.dtype.value).newbyteorder("<")).reshape(entry.shape)


@bordered(BundleError, "the bundle cannot be read", REPAIR, programming=READING_FAULTS)
def open_bundle(path: str | Path) -> Bundle:
    """Verify the bundle at `path` and return it; BundleError names the file, expected, found and remedy.

    Reads every byte of the bundle once (to hash it): 0.6 to 3 seconds per GB.
    """
    given = Path(path)
    try:
        root = given.resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links; ValueError: NUL
        raise BundleError(f"{given}: expected a bundle folder, found none ({error}); {BUILD}") from error
    if not root.is_dir():
        raise BundleError(f"{given}: expected a bundle folder, found a file; {BUILD}")
    manifest = parse(_read_manifest(root))
    _verify_files(root, manifest.files)
    for component in manifest.components:
        if component.engine is not None:
            continue  # opaque to all but the library that made it; its hash is what vouches for it
        folder = PurePosixPath(component.file).parent
        beside = {
            str(PurePosixPath(name).relative_to(folder)): entry.bytes
            for name, entry in manifest.files.items()
            if PurePosixPath(name).is_relative_to(folder)
        }
        check_graph(root / component.file, allowed_external=beside)
    return Bundle(root, manifest, _map_constants(root, manifest))


def _read_manifest(root: Path) -> bytes:
    try:
        target = _locate(root, MANIFEST_FILE)
    except FileNotFoundError as error:
        raise BundleError(f"{root}: expected a bundle with {MANIFEST_FILE}, found none; {BUILD}") from error
    found = target.stat().st_size
    if found > MOST_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST_FILE}: expected at most {MOST_MANIFEST_BYTES} bytes, found {found}; {REPAIR}")
    return target.read_bytes()


def _locate(root: Path, name: str) -> Path:
    """The regular file behind `name`, all links followed. FileNotFoundError if there is none.

    Links may lead anywhere inside the folder. One layout may lead out of it: a snapshot of a Hugging Face
    cache, <entry>/snapshots/<revision>/name -> <entry>/blobs/<hash>, where only the name itself is the link.
    """
    path = root / name
    try:
        parent, target = path.parent.resolve(strict=True), path.resolve(strict=True)
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        raise BundleError(f"{name}: expected a file, found {error}; {REPAIR}") from error
    in_cache = root.parent.name == "snapshots" and target.parent == root.parent.parent / "blobs"
    if not (parent.is_relative_to(root) and (target.is_relative_to(root) or in_cache)):
        raise BundleError(
            f"{name}: expected a file inside the bundle, found a link that leads out of it to {target}; "
            "put a copy of the file in its place"
        )
    if not stat.S_ISREG(target.stat().st_mode):
        raise BundleError(f"{name}: expected a regular file, found something else; {REPAIR}")
    return target


def _verify_files(root: Path, files: Mapping[str, FileEntry]) -> None:
    """Sizes of all files first (a truncated copy is found at once), then their hashes."""
    targets: dict[str, Path] = {}
    for name, entry in files.items():
        try:
            targets[name] = _locate(root, name)
        except FileNotFoundError as error:
            raise BundleError(f"{name}: expected a file of {entry.bytes} bytes, found none; {REPAIR}") from error
        found_bytes = targets[name].stat().st_size
        if found_bytes != entry.bytes:
            raise BundleError(f"{name}: expected {entry.bytes} bytes, found {found_bytes}; {REPAIR}")
    total = sum(entry.bytes for entry in files.values())
    log.log(logging.INFO if total > LONG else logging.DEBUG, "verifying %s of %s", size(total), root)
    for name, entry in files.items():
        found = sha256_of(targets[name])
        if found != entry.sha256:
            expected = f"sha256 {entry.sha256[:12]}..., found {found[:12]}..."
            raise BundleError(f"{name}: expected {expected}: the file was altered; {REPAIR}")


def _map_constants(root: Path, manifest: Manifest) -> NDArray[np.uint8]:
    entry = manifest.files.get(CONSTANTS_FILE)
    if entry is None or entry.bytes == 0:  # nothing to map; the reader made sure that no constant has bytes
        return np.zeros(0, np.uint8)
    return np.memmap(root / CONSTANTS_FILE, np.uint8, "r")
