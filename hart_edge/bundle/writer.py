"""Write a bundle: the folder of docs/bundle.md, complete or not at all.

In: graphs in their final form and everything the manifest states. Out: the folder under its final name. Everything
is written to a folder beside it first, which takes the name at the end.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.manifest import ALIGNMENT, CONSTANTS_FILE, MANIFEST_FILE, Constant, Dtype, FileEntry
from hart_edge.bundle.staging import require_free, take_name
from hart_edge.errors import BuildError

NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)


@contextlib.contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """A folder to write to that becomes `final` when the block ends well, and vanishes when it does not.

    A bundle that was there is replaced; any other non-empty folder is refused. Raises BuildError where the disk is
    full or the place is not writable; then `final` is as it was.
    """
    staging: Path | None = None
    try:
        require_free(final)
        final.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{final.name}.building-", dir=final.parent))
        staging.chmod(0o755)
        yield staging
        take_name(staging, final)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise BuildError(
                f"{final}: the disk is full ({error}); nothing was left behind. Make room or choose another --out"
            ) from error
        if error.errno in NOT_WRITABLE:
            raise BuildError(f"{final}: the bundle cannot be written ({error}); choose another --out") from error
        raise
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)  # gone already when all went well


def write_constants(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Constant]:
    """Write constants.bin, every tensor aligned, and return where each lies."""
    entries = {}
    with (folder / CONSTANTS_FILE).open("wb") as file:
        for name, array in arrays.items():
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            entries[name] = Constant(Dtype(array.dtype.name), array.shape, file.tell())
            file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return entries


def list_files(folder: Path) -> dict[str, FileEntry]:
    """Size and SHA-256 of every file of a bundle but its manifest."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or name == MANIFEST_FILE:
            continue
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        entries[name] = FileEntry(path.stat().st_size, digest)
    return entries
