"""Every drawing of an emoji that the packages hold, as a square picture on white.

In: verified archives and the emoji that have names. Out: Drawing records, one at a time. Styles are words of the
caption: 3d (Fluent, shaded), flat (Fluent), noto (Noto, drawn by other people).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hart_edge.data.errors import DataError
from hart_edge.data.names import plain_code
from hart_edge.data.packages import FLAT, NOTO, RENDERED, SHADED, Package, read_files, read_json

SIDE = 256  # pixels; the renderings are this large
STYLES = ("3d", "flat", "noto")


@dataclass(frozen=True)
class Drawing:
    """One picture of one emoji. pixels: (SIDE, SIDE, 3) uint8 RGB on white; package: where it came from."""

    code: str
    style: str
    package: str
    pixels: NDArray[np.uint8]


def read_drawings(archives: Mapping[Package, Path], codes: Collection[str]) -> Iterator[Drawing]:
    """The drawings of the emoji in `codes`, style by style.

    Fluent's shaded drawing exists as a rendering and, nearly always the same, as a vector drawing, which is taken
    only where the rendering is missing.
    """
    rendered = set()
    for name, data in read_files(archives[RENDERED], ".webp"):
        code = plain_code(name.removesuffix(".webp"))
        if code in codes and code not in rendered:
            rendered.add(code)
            with Image.open(io.BytesIO(data)) as image:
                yield Drawing(code, "3d", RENDERED.name, on_white(image))
    flat = IconSet(archives[FLAT])
    shaded = IconSet(archives[SHADED], flat.names)  # it has no table of codes of its own, and the same names
    noto = IconSet(archives[NOTO])
    for style, package, icons, done in (
        ("3d", SHADED, shaded, rendered),
        ("flat", FLAT, flat, set()),
        ("noto", NOTO, noto, set()),
    ):
        for code in icons.names:
            if code in codes and code not in done and (svg := icons.svg(code)) is not None:
                yield Drawing(code, style, package.name, render(svg))


class IconSet:
    """A set of SVG drawings in the iconify format: icons.json, and chars.json (code -> name)."""

    def __init__(self, archive: Path, names: Mapping[str, str] | None = None) -> None:
        self._set = read_json(archive, "icons.json")
        chars = names or {plain_code(code): name for code, name in read_json(archive, "chars.json").items()}
        self.names: dict[str, str] = dict(sorted(chars.items()))

    def svg(self, code: str) -> str | None:
        """The drawing of a code as an SVG document; None where the set lacks it."""
        icon = self._icon(self.names[code])
        if icon is None:
            return None
        left, top = icon.get("left", 0), icon.get("top", 0)
        width = icon.get("width", self._set.get("width", 16))
        height = icon.get("height", self._set.get("height", 16))
        body = icon["body"]
        if icon.get("hFlip"):
            body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
        return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{left} {top} {width} {height}">{body}</svg>'

    def _icon(self, name: str) -> dict[str, Any] | None:
        icons: dict[str, dict[str, Any]] = self._set["icons"]
        aliases: dict[str, dict[str, Any]] = self._set.get("aliases", {})
        if name in icons:
            return icons[name]
        if name not in aliases:
            return None
        alias = aliases[name]
        if set(alias) - {"parent", "hFlip", "hidden"}:
            raise DataError(f"icon {name}: expected an alias that is at most mirrored, found {sorted(alias)}")
        parent = self._icon(alias["parent"])
        return None if parent is None else {**parent, "hFlip": parent.get("hFlip", False) != alias.get("hFlip", False)}


def render(svg: str) -> NDArray[np.uint8]:
    """An SVG document as (SIDE, SIDE, 3) uint8 on white; a drawing that is not square is centred."""
    data = renderer()(svg_string=svg, width=SIDE, height=SIDE, background="#ffffff", skip_system_fonts=True)
    with Image.open(io.BytesIO(data)) as image:
        return on_white(image)


def renderer() -> Callable[..., bytes]:
    try:
        from resvg_py import svg_to_bytes
    except ModuleNotFoundError as error:
        raise DataError("drawing SVG needs resvg_py, which is not installed; pip install 'hart-edge[train]'") from error
    return svg_to_bytes


def on_white(image: Image.Image) -> NDArray[np.uint8]:
    ground = Image.new("RGBA", (SIDE, SIDE), "white")
    picture = image.convert("RGBA")
    if picture.size != (SIDE, SIDE):
        picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    ground.alpha_composite(picture, ((SIDE - picture.width) // 2, (SIDE - picture.height) // 2))
    return np.asarray(ground.convert("RGB"))
