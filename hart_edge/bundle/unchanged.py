"""Whether the files of a bundle are still those that were verified: for graphs that are opened later than the bundle.

A file is known by its stamp, which any write, replacement or new link changes; where the stamp is another, size and
SHA-256 are compared again. In: the manifest's list. Out: nothing, or a BundleError.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from hart_edge.bundle.files import sha256_of
from hart_edge.bundle.links import locate
from hart_edge.bundle.manifest import FileEntry
from hart_edge.errors import BundleError

# Seconds. File systems count changes in ticks: one right after another may leave the stamp as it is.
SETTLED = 2.0
REMEDY = "the bundle was rebuilt, changed or removed meanwhile; load it again"


class Stamp(NamedTuple):
    """What the file system says of a file. device and inode: which one it is; the others: when it was written."""

    device: int
    inode: int
    size: int
    written: int  # nanoseconds
    changed: int  # nanoseconds; of links and names too, and no program can set it

    @classmethod
    def of(cls, path: Path) -> Stamp:
        found = path.stat()
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def is_settled(self) -> bool:
        return time.time() - max(self.written, self.changed) / 1e9 > SETTLED


class VerifiedFiles:
    """The files of a bundle that was verified, and the stamps that they had."""

    def __init__(self, root: Path, files: Mapping[str, FileEntry], stamps: Mapping[str, Stamp]) -> None:
        """stamps: of every file, taken before it was hashed; none of one that is hashed when it is first required."""
        self._root, self._files, self._stamps = root, files, dict(stamps)
        self._settled = {name for name, stamp in stamps.items() if stamp.is_settled()}

    @contextmanager
    def opened(self, names: Iterable[str]) -> Iterator[None]:
        """Around the opening of files: they must be the verified ones before it and after it. Raises BundleError."""
        names = tuple(names)
        self.require(names)
        try:
            yield
        finally:  # an engine that failed for the sake of a file that went says so too
            self.require(names)

    def require(self, names: Iterable[str]) -> None:
        """Raise BundleError unless the files are what the manifest lists. Reads those alone whose stamps changed."""
        for name in names:
            try:
                stamp = Stamp.of(self._root / name)
                if stamp == self._stamps.get(name) and name in self._settled:
                    continue
                entry, target = self._files[name], locate(self._root, name)
                same = stamp.size == entry.bytes and sha256_of(target) == entry.sha256
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else str(error)
                raise BundleError(
                    f"{name}: expected the file that was verified, found none ({reason}); {REMEDY}"
                ) from error
            if not same:
                raise BundleError(f"{name}: expected the file that was verified, found another; {REMEDY}")
            self._stamps[name] = stamp
            if stamp.is_settled():
                self._settled.add(name)

    def require_unwritten(self, names: Iterable[str]) -> None:
        """Raise BundleError where a file was written in place: one that is mapped changes with it.

        A file that was replaced or removed stays what it was for those who have it open.
        """
        for name in names:
            known = self._stamps[name]
            try:
                stamp = Stamp.of(self._root / name)
            except OSError:
                continue
            if stamp[:2] == known[:2] and stamp[2:4] != known[2:4]:
                raise BundleError(f"{name}: expected the file that was verified, found it written over; {REMEDY}")
