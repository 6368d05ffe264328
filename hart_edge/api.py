"""The two calls most users need: generate() and load()."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Unpack, overload

import hart_edge
from hart_edge.bundle.manifest import MANIFEST_FILE
from hart_edge.bundle.settings import Settings
from hart_edge.engines.loading import load
from hart_edge.errors import BundleError
from hart_edge.runtime.context import Context
from hart_edge.runtime.pipeline import Pipeline
from hart_edge.runtime.settings import explained

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["DEFAULT_BUNDLE", "generate", "load"]

DEFAULT_BUNDLE = Path("bundles/hart-emoji-int8")  # what `python -m export.build --precision int8` makes
PACKAGED_BUNDLE = Path(hart_edge.__file__).parent / DEFAULT_BUNDLE  # what the wheel of a device carries


@overload
def generate(  # type: ignore[overload-overlap]  # a str is a sequence of str too, and the first that fits is taken
    prompt: str | Context,
    *,
    bundle: str | Path | None = None,
    seed: int | Sequence[int] = 0,
    **settings: Unpack[Settings],
) -> Image.Image: ...


@overload
def generate(
    prompt: Sequence[str | Context],
    *,
    bundle: str | Path | None = None,
    seed: int | Sequence[int] = 0,
    **settings: Unpack[Settings],
) -> list[Image.Image]: ...


@explained
def generate(
    prompt: str | Context | Sequence[str | Context],
    *,
    bundle: str | Path | None = None,
    seed: int | Sequence[int] = 0,
    **settings: Unpack[Settings],
) -> Image.Image | list[Image.Image]:
    """Generate a picture from a prompt; a list of prompts gives a list of pictures.

    bundle: a bundle's folder, by default bundles/hart-emoji-int8 under the current folder, or else the one that the
    wheel of a device carries. The other arguments, the result and the errors are those of Pipeline.generate(). The last
    bundle used stays loaded; hold a pipeline from load() to use several.

        image = hart_edge.generate("a red heart", seed=7, cfg_scale=3)
        images = hart_edge.generate(["a red heart", "a green heart"], seed=[1, 2])

    Settings, each by default the bundle's own:
    {settings}
    """
    pipeline = _loaded(find_bundle(bundle))
    return pipeline.generate(prompt, seed=seed, **settings)


def find_bundle(bundle: str | Path | None, packaged: Path = PACKAGED_BUNDLE) -> Path:
    """The folder to use: what was named, else the default bundle of the current folder, else that of the installation.

    packaged: where the wheel of a device carries its bundle. Raises BundleError naming the commands that make one.
    """
    if bundle is not None:
        return Path(bundle)
    for folder in (DEFAULT_BUNDLE, packaged):
        if (folder / MANIFEST_FILE).is_file():
            return folder
    raise BundleError(
        f"no bundle was named, {DEFAULT_BUNDLE} is not in {Path.cwd()}, and this installation carries none; build it "
        "with `make demo` in a clone, or with `python -m export.build --precision int8` (pip install "
        "'hart-edge[export,cpu]'), install the wheel of `make wheel`, or name the folder of another"
    )


def _loaded(folder: Path) -> Pipeline:
    """The pipeline that is loaded, unless the folder has come to hold another bundle. A link may lead to another."""
    try:
        place = folder.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):  # load() says what is wrong
        return load(folder)
    pipeline = _load_cached(place)
    if not pipeline.bundle.is_current():
        _load_cached.cache_clear()
        pipeline = _load_cached(place)
    return pipeline


@lru_cache(maxsize=1)
def _load_cached(folder: Path) -> Pipeline:
    return load(folder)
