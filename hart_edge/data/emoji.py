"""The emoji set: public packages -> DIR/train, DIR/validation, DIR/test, each pictures with captions.

In: the archives of packages.py. Out: a folder that read_pictures (and any reader of the imagefolder layout) takes,
with its licences and sources, complete or not at all.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hart_edge import __version__
from hart_edge.data.drawings import SIDE, STYLES, read_drawings, renderer
from hart_edge.data.duplicates import first_alike, small_view
from hart_edge.data.errors import DataError
from hart_edge.data.names import TONES, Emoji, captions, read_emoji, toneless
from hart_edge.data.packages import NAMES, Package, read_json
from hart_edge.data.splits import Split, fraction, split
from hart_edge.staging import staged_folder, take_name

log = logging.getLogger(__name__)

Progress = Callable[[str, int], None]  # what is being done, and how many are done

LICENCES_FILE, SOURCES_FILE, METADATA_FILE = "licences.json", "sources.json", "metadata.jsonl"
EXPECTED_STYLE = "3d"  # what a caption without a style means, wherever an emoji is drawn in it


@dataclass(frozen=True)
class Picture:
    """One picture of the set. file: its name in its split's folder; package: where the drawing came from."""

    file: str
    emoji: Emoji
    style: str
    package: str


@dataclass(frozen=True)
class EmojiSet:
    """What was made: pictures by split, and how many drawings were left out because another looks the same."""

    pictures: Mapping[Split, Sequence[Picture]]
    duplicates: int


def build(out: Path, archives: Mapping[Package, Path], progress: Progress = lambda what, done: None) -> EmojiSet:
    """Write the set to `out`, from the archives that find_archives gives; minutes of work.

    A set that is there is replaced as a whole. Raises DataError where `out` holds anything else or cannot be written;
    then nothing is written.
    """
    renderer()  # raises at once where it is missing
    with staged_set(out) as staging:
        emoji = read_emoji(read_json(archives[NAMES], "en/data.json"))
        drawn, duplicates = draw(archives, emoji, staging, progress)
        expected = {picture.emoji.code for picture in drawn if picture.style == EXPECTED_STYLE}
        splits = split(emoji, {(picture.emoji.code, picture.style) for picture in drawn})
        by_split: dict[Split, list[Picture]] = {each: [] for each in Split}
        for picture in drawn:
            by_split[splits[picture.emoji.code, picture.style]].append(picture)
        for name, pictures in by_split.items():
            write_split(staging, staging / name, pictures, expected)
        made = EmojiSet(by_split, duplicates)
        write_papers(staging, made, archives)
    return made


def draw(
    archives: Mapping[Package, Path], emoji: Mapping[str, Emoji], folder: Path, progress: Progress
) -> tuple[list[Picture], int]:
    """Write every drawing to `folder` as PNG; returns the pictures that are kept, and how many were not."""
    pictures, views = [], []
    for drawing in read_drawings(archives, emoji):
        picture = Picture(f"{drawing.code}-{drawing.style}.png", emoji[drawing.code], drawing.style, drawing.package)
        Image.fromarray(drawing.pixels).save(folder / picture.file)
        pictures.append(picture)
        views.append(small_view(drawing.pixels))
        progress(f"{drawing.style} pictures", len(pictures))
    progress("duplicates", len(pictures))
    # Where two emoji have one picture, the shorter name stays: it claims less, so it is true of the picture.
    order = sorted(range(len(pictures)), key=lambda i: (len(pictures[i].emoji.name), pictures[i].file))
    first = first_alike(np.stack([views[i] for i in order]))
    kept = []
    for position, index in enumerate(order):
        if first[position] == position:
            kept.append(pictures[index])
            continue
        (folder / pictures[index].file).unlink()
        log.info("%s: looks like %s, left out", pictures[index].file, pictures[order[first[position]]].file)
    return kept, len(pictures) - len(kept)


def write_split(source: Path, folder: Path, pictures: Sequence[Picture], expected: Collection[str]) -> None:
    """Move a split's pictures from `source` to `folder` and write metadata.jsonl, mixed: any part of it is a sample.

    expected: codes of the emoji that are drawn in EXPECTED_STYLE, in whichever split.
    """
    folder.mkdir()
    lines = []
    for picture in sorted(pictures, key=lambda picture: fraction(f"order/{picture.file}")):
        (source / picture.file).rename(folder / picture.file)
        lines.append({
            "file_name": picture.file,
            "text": captions(
                picture.emoji,
                picture.style,
                unstyled=picture.style == EXPECTED_STYLE or picture.emoji.code not in expected,
            ),
            "name": picture.emoji.name,
            "style": picture.style,
            "group": toneless(picture.emoji.code),
            "weight": weight(picture),
            "source": picture.package,
        })  # fmt: skip
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / METADATA_FILE).write_text(text, encoding="utf-8")


def weight(picture: Picture) -> int:
    """How often the picture is drawn among those of its group, for training that draws by group and weight.

    What people ask for comes more often: the expected style twice as often as another, and the emoji that names no
    skin tone as often as its five tones together.
    """
    return (2 if picture.style == EXPECTED_STYLE else 1) * (1 if picture.emoji.tones else len(TONES))


def write_papers(folder: Path, made: EmojiSet, archives: Mapping[Package, Path]) -> None:
    """licences.json, sources.json and README.md."""
    licences = [{"part": p.part, "spdx": p.spdx, "attribution": p.attribution} for p in archives]
    write_json(folder / LICENCES_FILE, licences)
    packages = []
    for package, archive in archives.items():
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        packages.append({**asdict(package), "archive": archive.name, "sha256": digest})
    tools = {name: importlib.metadata.version(name) for name in ("numpy", "pillow", "resvg_py")}
    counts = {name: len(pictures) for name, pictures in made.pictures.items()}
    write_json(
        folder / SOURCES_FILE,
        {"packages": packages, "tools": {"hart-edge": __version__, **tools}, "pictures": counts,
         "left_out_as_duplicates": made.duplicates},
    )  # fmt: skip
    (folder / "README.md").write_text(card(made, archives), encoding="utf-8")


def write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def card(made: EmojiSet, archives: Iterable[Package]) -> str:
    """README.md of the set."""
    rows = []
    for name, pictures in made.pictures.items():
        count = Counter(picture.style for picture in pictures)
        rows.append(f"| `{name}/` | {len(pictures):,} | {' | '.join(f'{count[style]:,}' for style in STYLES)} |")
    sources = [f"| {p.part} | {p.name} {p.version} | {p.attribution} | {p.spdx} |" for p in archives]
    return f"""# Emoji with captions

Made by `hart-edge data emoji` (hart-edge {__version__}): {SIDE} x {SIDE} pixel PNG on white, one picture for each emoji
and style. Every folder holds `metadata.jsonl`, a line a picture: `file_name`, `text` (its captions, the first the
canonical one), `name`, `style`, `group` (the same for an emoji in all skin tones and styles), `weight` (how often the
picture is drawn within its group) and `source`.

| folder | pictures | {" | ".join(STYLES)} |
|---|---|{"---|" * len(STYLES)}
{chr(10).join(rows)}

- `train/`: what to train with.
- `validation/`: emoji in one style that `train/` holds in other styles only, with all their skin tones.
- `test/`: combinations of a skin tone with a person or gesture, or of a colour with a shape, that `train/` holds in no
  style, while it holds every part of them.

{made.duplicates} drawings were left out because another looks the same.

| part | package | by | licence |
|---|---|---|---|
{chr(10).join(sources)}

`sources.json` has the hash of every package. Whoever passes the pictures on passes these notices on.
"""


@contextlib.contextmanager
def staged_set(final: Path) -> Iterator[Path]:
    """A folder to write to that becomes `final` when the block ends well, and vanishes when it does not."""
    if final.exists() and not (final / SOURCES_FILE).is_file() and (not final.is_dir() or any(final.iterdir())):
        raise DataError(
            f"{final}: expected nothing, or an emoji set to replace, found something else; name another folder"
        )
    try:
        with staged_folder(final) as staging:
            yield staging
            take_name(staging, final)
    except OSError as error:
        raise DataError(f"{final}: could not be written ({error}); nothing was left behind") from error
