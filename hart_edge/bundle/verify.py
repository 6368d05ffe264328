"""A bundle folder, verified: a path in, a Bundle out whose files may be given to an engine library.

Everything is checked before any other library opens a file: the manifest, that no path or link leads out of
the folder, the size and SHA-256 of every file, and the inside of every graph. Source of the rules:
docs/bundle.md.
"""

from __future__ import annotations

import difflib
import hashlib
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.files import sha256_of
from hart_edge.bundle.links import REPAIR, locate
from hart_edge.bundle.manifest import CONSTANTS_FILE, MANIFEST_FILE, MOST_MANIFEST_BYTES, FileEntry, Manifest, parse
from hart_edge.bundle.onnx_guard import check_graph
from hart_edge.bundle.unchanged import Stamp, VerifiedFiles
from hart_edge.errors import READING_FAULTS, BundleError, bordered
from hart_edge.units import size

log = logging.getLogger(__name__)

BUILD = "build one with python -m export.build --precision int8"
BUNDLES = Path("bundles")  # where builds leave bundles, under the current folder
MOST_BESIDE = 1000  # entries of a folder that are looked at for a name like the one that is missing
LONG = 200 * 2**20  # bytes; a bundle of this size takes long enough to say so


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. Files that are opened later are held against what was verified.

    sha256: of manifest.json, which holds the sums of all other files, so that it stands for the whole bundle.
    """

    folder: Path
    manifest: Manifest
    sha256: str
    _constants: NDArray[np.uint8] = field(repr=False, compare=False)
    _verified: VerifiedFiles = field(repr=False, compare=False)

    def path(self, name: str) -> Path:
        """The file that manifest.files lists as `name`; BundleError for any other name."""
        if name not in self.manifest.files:
            raise BundleError(f"{self.folder}: expected a name in manifest.files, found {name!r}; {REPAIR}")
        return self.folder / name

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        """The file that manifest.files lists as `name`, for the time that it takes to open it.

        Raises BundleError where it, or a file that a graph may keep weights in, is not what was verified.
        """
        path = self.path(name)
        is_component = any(component.file == name for component in self.manifest.components)
        with self._verified.opened(files_beside(name, self.manifest.files) if is_component else (name,)):
            yield path

    def require_unwritten(self) -> None:
        """Raise BundleError where a file that may be mapped, a graph's or constants.bin, was written in place."""
        graphs = {name for each in self.manifest.components for name in files_beside(each.file, self.manifest.files)}
        self._verified.require_unwritten(graphs | self.manifest.files.keys() & {CONSTANTS_FILE})

    def is_current(self) -> bool:
        """Whether the folder still holds this bundle: the same manifest, and no file that may be mapped written over.

        A bundle that was replaced by the same one is the same.
        """
        try:
            self._verified.require((MANIFEST_FILE,))
            self.require_unwritten()
        except BundleError:
            return False
        return True

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
    except FileNotFoundError as error:
        near = nearest_bundle(given)
        remedy = BUILD if near is None else f"did you mean {near}? If not, {BUILD}"
        raise BundleError(f"{given}: expected a bundle folder, found none; {remedy}") from error
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links; ValueError: NUL
        raise BundleError(f"{given}: expected a bundle folder, found none ({error}); {BUILD}") from error
    if not root.is_dir():
        raise BundleError(f"{given}: expected a bundle folder, found a file; {BUILD}")
    data, stamp = _read_manifest(root)
    manifest = parse(data)
    stamps = _verify_files(root, manifest.files)
    for component in manifest.components:
        if component.engine is not None:
            continue  # opaque to all but the library that made it; its hash is what vouches for it
        folder = PurePosixPath(component.file).parent
        beside = {
            str(PurePosixPath(name).relative_to(folder)): manifest.files[name].bytes
            for name in files_beside(component.file, manifest.files)
        }
        check_graph(root / component.file, allowed_external=beside)
    sha256 = hashlib.sha256(data).hexdigest()
    known = {**manifest.files, MANIFEST_FILE: FileEntry(len(data), sha256)}
    constants, verified = _map_constants(root, manifest), VerifiedFiles(root, known, {**stamps, MANIFEST_FILE: stamp})
    verified.require(known)  # what was looked into and mapped is what was hashed
    return Bundle(root, manifest, sha256, constants, verified)


def nearest_bundle(given: Path) -> Path | None:
    """The bundle of the nearest name beside a folder that is not there, or in bundles/; None where none is like it."""
    found: dict[str, Path] = {}
    for folder in (given.parent, BUNDLES):
        try:
            entries = [*itertools.islice(folder.iterdir(), MOST_BESIDE)]
        except (OSError, ValueError):
            continue
        found |= {each.name: each for each in entries if each.name not in found and (each / MANIFEST_FILE).is_file()}
    (near, *_) = (*difflib.get_close_matches(given.name, found, 1), None)
    return None if near is None else found[near]


def files_beside(name: str, files: Iterable[str]) -> tuple[str, ...]:
    """The files in a file's folder or below it, itself among them."""
    folder = PurePosixPath(name).parent
    return tuple(each for each in files if PurePosixPath(each).is_relative_to(folder))


def _read_manifest(root: Path) -> tuple[bytes, Stamp]:
    """manifest.json, and the stamp that it had before it was read."""
    try:
        target = locate(root, MANIFEST_FILE)
    except FileNotFoundError as error:
        raise BundleError(f"{root}: expected a bundle with {MANIFEST_FILE}, found none; {BUILD}") from error
    stamp = Stamp.of(target)
    found = stamp.size
    if found > MOST_MANIFEST_BYTES:
        raise BundleError(f"{MANIFEST_FILE}: expected at most {MOST_MANIFEST_BYTES} bytes, found {found}; {REPAIR}")
    return target.read_bytes(), stamp


def _verify_files(root: Path, files: Mapping[str, FileEntry]) -> dict[str, Stamp]:
    """Sizes of all files first (a truncated copy is found at once), then their hashes. The stamps that were hashed."""
    targets: dict[str, Path] = {}
    stamps: dict[str, Stamp] = {}
    for name, entry in files.items():
        try:
            targets[name] = locate(root, name)
        except FileNotFoundError as error:
            raise BundleError(f"{name}: expected a file of {entry.bytes} bytes, found none; {REPAIR}") from error
        stamps[name] = Stamp.of(targets[name])
        if stamps[name].size != entry.bytes:
            raise BundleError(f"{name}: expected {entry.bytes} bytes, found {stamps[name].size}; {REPAIR}")
    total = sum(entry.bytes for entry in files.values())
    log.log(logging.INFO if total > LONG else logging.DEBUG, "verifying %s of %s", size(total), root)
    for name, entry in files.items():
        found = sha256_of(targets[name])
        if found != entry.sha256:
            expected = f"sha256 {entry.sha256[:12]}..., found {found[:12]}..."
            raise BundleError(f"{name}: expected {expected}: the file was altered; {REPAIR}")
    return stamps


def _map_constants(root: Path, manifest: Manifest) -> NDArray[np.uint8]:
    entry = manifest.files.get(CONSTANTS_FILE)
    if entry is None or entry.bytes == 0:  # nothing to map; the reader made sure that no constant has bytes
        return np.zeros(0, np.uint8)
    return np.memmap(root / CONSTANTS_FILE, np.uint8, "r")
