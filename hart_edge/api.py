"""The two calls most users need: generate() and load()."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from hart_edge.bundle.manifest import MANIFEST_FILE
from hart_edge.bundle.settings import Settings
from hart_edge.engines.loading import load
from hart_edge.errors import BundleError
from hart_edge.runtime.pipeline import Context, Pipeline
from hart_edge.runtime.settings import explained

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["DEFAULT_BUNDLE", "generate", "load"]

DEFAULT_BUNDLE = Path("bundles/hart-emoji-int8")  # what `python -m export.build --precision int8` makes


@explained
def generate(
    prompt: str | Context | Sequence[str | Context],
    *,
    bundle: str | Path | None = None,
    seed: int | Sequence[int] = 0,
    **settings: Unpack[Settings],
) -> Image.Image | list[Image.Image]:
    """Generate a picture from a prompt; a list of prompts gives a list of pictures.

    bundle: a bundle's folder, by default bundles/hart-emoji-int8 under the current folder. The other arguments,
    the result and the errors are those of Pipeline.generate(). The last bundle used stays loaded; hold a pipeline
    from load() to use several.

    Settings, each by default the bundle's own:
    {settings}
    """
    pipeline = _loaded(find_bundle(bundle))
    return pipeline.generate(prompt, seed=seed, **settings)


def find_bundle(bundle: str | Path | None) -> Path:
    """The folder to use. Raises BundleError naming the command that builds the default one."""
    if bundle is not None:
        return Path(bundle)
    if not (DEFAULT_BUNDLE / MANIFEST_FILE).is_file():
        raise BundleError(
            f"no bundle was named and {DEFAULT_BUNDLE} is not in {Path.cwd()}; build it with "
            "`python -m export.build --precision int8`, or name one with bundle="
        )
    return DEFAULT_BUNDLE


def _loaded(folder: Path) -> Pipeline:
    try:
        stat = (folder / MANIFEST_FILE).stat()
    except (OSError, ValueError):  # load() says what is wrong
        return load(folder)
    return _load_cached(folder.resolve(), stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=1)
def _load_cached(folder: Path, modified: int, inode: int) -> Pipeline:
    """modified and inode tell a rebuilt bundle from the one that is loaded."""
    return load(folder)
