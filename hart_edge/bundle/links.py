"""Where the files of a bundle lie: the folder and a name in, a regular file out. No link leads out of it.

Links may lead anywhere inside the folder. One layout may lead out of it: a snapshot of a Hugging Face cache,
ENTRY/snapshots/REVISION/ and any depth below it, where a file is a link to ENTRY/blobs/HASH.
"""

from __future__ import annotations

import stat
from pathlib import Path

from hart_edge.errors import BundleError

REPAIR = "copy the bundle again or rebuild it with python -m export.build"


def locate(root: Path, name: str) -> Path:
    """The regular file behind `name`, all links followed; root: resolved. FileNotFoundError if there is none."""
    path = root / name
    try:
        parent, target = path.parent.resolve(strict=True), path.resolve(strict=True)
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        raise BundleError(f"{name}: expected a file, found {error}; {REPAIR}") from error
    allowed = target.is_relative_to(root) or target.parent == _blobs(root)
    if not (parent.is_relative_to(root) and allowed):  # only the last part of a name may be a link to a blob
        raise BundleError(
            f"{name}: expected a file inside the bundle, found a link that leads out of it to {target}; "
            "put a copy of the file in its place"
        )
    if not stat.S_ISREG(target.stat().st_mode):
        raise BundleError(f"{name}: expected a regular file, found something else; {REPAIR}")
    return target


def _blobs(root: Path) -> Path | None:
    """The one folder that links of a bundle in a Hugging Face cache lead to; None for a bundle elsewhere.

    It is that of the nearest entry around the bundle: a folder `snapshots` beside a folder `blobs`.
    """
    for snapshots in root.parents:
        blobs = snapshots.parent / "blobs"
        if snapshots.name == "snapshots" and blobs.is_dir():
            return blobs
    return None
