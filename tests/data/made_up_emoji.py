"""Invented packages in the formats of the real ones: a few hundred emoji, each a patch of its own colour."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from hart_edge.data.names import TONES, plain_code
from hart_edge.data.packages import FLAT, NAMES, NOTO, RENDERED, SHADED, Package

COLOURS = ("red", "blue", "green", "brown", "purple", "yellow")
SHAPES = ("heart", "circle", "square")
ROLES = ("cook", "pilot", "judge", "farmer", "singer", "artist", "teacher", "student")
GESTURES = ("raised fist", "victory hand", "thumbs up", "call me hand", "biking", "mountain biking")
THINGS = tuple(
    f"{kind} {part}" for kind in ("cat", "dog", "cow", "fox", "owl", "elk") for part in ("face", "paw", "tail")
)
PEOPLE = {"1f468": "man ", "1f469": "woman ", "1f9d1": ""}


def entry(code: str, name: str, group: int, tags: tuple[str, ...] = (), tones: bool = False) -> dict[str, Any]:
    """An entry of emojibase's data.json."""
    first, *rest = code.upper().split("-")
    skins = [
        {"hexcode": "-".join([first, tone.upper(), *rest]), "label": f"{name}: {word} skin tone", "group": group}
        for tone, word in TONES.items()
    ]
    made = {"hexcode": code.upper(), "label": name, "group": group, "tags": list(tags), "emoji": "?"}
    return made | ({"skins": skins} if tones else {})


def emoji_data() -> list[dict[str, Any]]:
    """data.json: roles of three genders, gestures with skin tones, coloured shapes, things, and other entries."""
    data = []
    for number, role in enumerate(ROLES):
        data += [entry(f"{p}-200D-1f6{number:02}", g + role, 1, ("job", role), tones=True) for p, g in PEOPLE.items()]
    data += [entry(f"1f4{number:02}", name, 1, ("sign",), tones=True) for number, name in enumerate(GESTURES)]
    both = entry("1f91d", "handshake", 1, tones=True)
    both["skins"].append(
        {"hexcode": "1FAF1-1F3FB-200D-1FAF2-1F3FF", "label": "handshake: light skin tone, dark skin tone", "group": 1}
    )
    data.append(both)
    shapes = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    data += [entry(f"1f5{n:02}-FE0F", f"{c} {s}", 8, ("geometric", c)) for n, (c, s) in enumerate(shapes)]
    data += [entry(f"1f7{number:02}", name, 3, ("animal",)) for number, name in enumerate(THINGS)]
    data += [entry("1F1F3-1F1F4", "flag: Norway", 9), entry("1F1F8-1F1EF", "flag: Svalbard & Jan Mayen", 9)]
    data += [entry("1F3FB", "light skin tone", 2), {"hexcode": "1F1E6", "label": "regional indicator A", "emoji": "?"}]
    return data


def all_codes(data: list[dict[str, Any]]) -> list[str]:
    return [each["hexcode"] for entry in data for each in (entry, *entry.get("skins", ()))]


def patch(code: str, style: str) -> tuple[str, tuple[int, int]]:
    """The (colour, place) by which a drawing differs from every other."""
    digest = hashlib.sha256(f"{plain_code(code)}/{style}".encode()).digest()
    return f"#{digest[:3].hex()}", (digest[3] % 16, digest[4] % 16)


def body(code: str, style: str) -> str:
    """SVG in a box of 32 x 32."""
    colour, (x, y) = patch(code, style)
    return f'<path fill="{colour}" d="M{x} {y}h16v16h-16z"/>'


def write_packages(folder: Path, data: list[dict[str, Any]] | None = None) -> dict[Package, Path]:
    """Archives as npm pack writes them. The renderings lack the last thing, and two flags are the same picture."""
    data = emoji_data() if data is None else data
    codes = all_codes(data)
    last = codes[-5]
    rendered = {}
    for code in codes:
        if code != last:
            colour, (x, y) = patch("1F1F3-1F1F4" if code == "1F1F8-1F1EF" else code, "3d")
            image = Image.new("RGBA", (256, 256))
            image.paste(colour, (8 * x, 8 * y, 8 * x + 128, 8 * y + 128))
            stream = io.BytesIO()
            image.save(stream, "WEBP", lossless=True)
            rendered[f"assets/{code.lower()}.webp"] = stream.getvalue()
    names = {code.lower().replace("-fe0f", ""): f"icon-{number}" for number, code in enumerate(codes)}
    flags = {code for code in names if code.startswith("1f1")}
    drawn = {code: name for code, name in names.items() if code not in flags}
    mirrored = list(drawn)[-1]

    def icon_set(style: str) -> dict[str, Any]:
        icons = {name: {"body": body(code, style)} for code, name in drawn.items() if code != mirrored}
        aliases = {names[mirrored]: {"parent": names[list(drawn)[-2]], "hFlip": True}}
        return {"prefix": style, "width": 32, "height": 32, "icons": icons, "aliases": aliases}

    chars = json.dumps(drawn).encode()
    files: Mapping[Package, Mapping[str, bytes]] = {
        RENDERED: rendered,
        SHADED: {"icons.json": json.dumps(icon_set("shaded")).encode(), "chars.json": b"{}"},
        FLAT: {"icons.json": json.dumps(icon_set("flat")).encode(), "chars.json": chars},
        NOTO: {"icons.json": json.dumps(icon_set("noto")).encode(), "chars.json": chars},
        NAMES: {"en/data.json": json.dumps(data).encode()},
    }
    return {package: write_archive(folder / package.archive, content) for package, content in files.items()}


def write_archive(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
