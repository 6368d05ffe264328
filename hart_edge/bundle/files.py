"""The files of a bundle folder: as its manifest lists them (path, size, SHA-256), and paths as libraries take them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hart_edge.bundle.manifest import MANIFEST_FILE, FileEntry

BLOCK = 4 * 2**20  # bytes that are hashed at a time


@contextmanager
def path_in_text(path: Path) -> Iterator[str]:
    """A path in UTF-8, for libraries that take no other; its last part is UTF-8 already.

    A folder of another name is reached by a descriptor, while the block runs, where the system has /proc.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            yield f"/proc/self/fd/{folder}/{path.name}"
        finally:
            os.close(folder)
    else:
        yield str(path)


def file_entry(path: Path) -> FileEntry:
    return FileEntry(path.stat().st_size, sha256_of(path))


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Every file below `folder` but its manifest, sorted by path."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: file_entry(path) for name, path in paths.items() if name != MANIFEST_FILE}


def sha256_of(path: Path) -> str:
    """64 hex digits; the file is read once, a block at a time."""
    digest, block = hashlib.sha256(), memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
    return digest.hexdigest()
