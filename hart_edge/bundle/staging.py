"""Give a finished folder its final name, all of it or nothing; what was there before is replaced only at the end."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hart_edge.bundle.manifest import MANIFEST_FILE
from hart_edge.errors import BuildError


def require_free(final: Path) -> None:
    """Raise BuildError where something lies under that name that is no bundle."""
    if final.exists() and not (final / MANIFEST_FILE).is_file() and (not final.is_dir() or any(final.iterdir())):
        raise BuildError(f"{final}: exists and is not a bundle, so it is left alone; choose another --out")


def take_name(folder: Path, final: Path) -> None:
    """Rename a folder to `final`, beside which it lies. A bundle of that name makes way, and comes back on failure."""
    if not final.exists():
        folder.rename(final)
        return
    replaced = Path(tempfile.mkdtemp(prefix=f".{final.name}.replaced-", dir=final.parent))
    before = replaced / final.name
    try:
        final.rename(before)
        folder.rename(final)
    finally:
        if before.exists() and not final.exists():
            before.rename(final)
        shutil.rmtree(replaced, ignore_errors=True)
