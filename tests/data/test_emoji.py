"""`hart-edge data emoji` on invented packages: what it writes, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hart_edge.cli.data as command
from hart_edge.data import drawings, emoji
from hart_edge.data.emoji import EmojiSet, build
from hart_edge.data.errors import DataError
from hart_edge.data.packages import FLAT, RENDERED, SHADED, Package
from hart_edge.data.pictures import Pictures, read_pictures
from hart_edge.data.splits import Split
from tests.cli.command_line import Run
from tests.data.made_up_emoji import (
    GESTURES,
    PEOPLE,
    ROLES,
    all_codes,
    emoji_data,
    entry,
    patch,
    write_packages,
)

SHIPPED = Path(emoji.__file__).parents[1] / "models" / "hart-emoji"
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def data() -> list[dict[str, Any]]:
    """Two roles, two gestures, and everything else."""
    every = emoji_data()
    first_gesture = len(PEOPLE) * len(ROLES)
    return every[: 2 * len(PEOPLE)] + every[first_gesture:][:2] + every[first_gesture + len(GESTURES) :]


@pytest.fixture(scope="module")
def archives(data: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[Package, Path]:
    return write_packages(tmp_path_factory.mktemp("packages"), data)


@pytest.fixture(scope="module")
def built(archives: dict[Package, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EmojiSet]:
    out = tmp_path_factory.mktemp("built") / "deep" / "emoji"
    return out, build(out, archives)


@pytest.fixture
def few(tmp_path: Path) -> dict[Package, Path]:
    """Packages of six emoji, which are quick to build."""
    (tmp_path / "packages").mkdir()
    names = ("sun", "moon", "star", "comet", "cloud", "rain")
    return write_packages(tmp_path / "packages", [entry(f"1f30{n}", name, 5) for n, name in enumerate(names)])


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read(folder: Path) -> Iterator[tuple[str, Pictures]]:
    for split in SPLITS:
        yield split, read_pictures(folder / split, 32)


def test_files_and_their_contents(built: tuple[Path, EmojiSet], data: list[dict[str, Any]]) -> None:
    out, made = built
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "licences.json", "sources.json", "test", "train", "validation",
    ]  # fmt: skip
    assert list(out.parent.iterdir()) == [out]  # no temporary folder is left
    codes = len(all_codes(data)) - 2  # without the component and the letter
    assert made.duplicates == 1
    assert sum(map(len, made.pictures.values())) == (codes - 2) * 3 + 1  # flags have one style and look alike
    for split in Split:
        lines = (out / split / "metadata.jsonl").read_text("utf-8").splitlines()
        names = {json.loads(line)["file_name"] for line in lines}
        assert names == {picture.file for picture in made.pictures[split]}
        assert {path.name for path in (out / split).iterdir()} == names | {"metadata.jsonl"}


def test_training_reads_the_splits(built: tuple[Path, EmojiSet]) -> None:
    out, made = built
    for split, pictures in read(out):
        by_file = {picture.file: picture for picture in made.pictures[Split(split)]}
        assert len(pictures) == len(by_file)
        for name, captions, image in zip(pictures.names, pictures.captions, pictures.images, strict=True):
            picture = by_file[name]
            assert captions[0] == f"{picture.emoji.name}, {picture.style}"
            assert name == f"{picture.emoji.code}-{picture.style}.png"
            assert (image[-1, -1] == 255).all() or (image[0, 0] == 255).all()  # the background is white


def test_a_caption_without_a_style_means_3d(built: tuple[Path, EmojiSet]) -> None:
    """For every emoji that is drawn in 3d, whatever the split of that drawing."""
    out, made = built
    drawn = {(picture.emoji.code, picture.style) for pictures in made.pictures.values() for picture in pictures}
    for split, pictures in read(out):
        by_file = {picture.file: picture for picture in made.pictures[Split(split)]}
        for name, captions in zip(pictures.names, pictures.captions, strict=True):
            code, style = by_file[name].emoji.code, by_file[name].style
            unstyled = [caption for caption in captions if not caption.endswith(f", {style}")]
            assert bool(unstyled) == (style == "3d" or (code, "3d") not in drawn), name


def test_groups_and_weights(built: tuple[Path, EmojiSet], data: list[dict[str, Any]]) -> None:
    """A group is an emoji in all tones and styles; 3d has twice the weight, no tone that of the five together."""
    out, _ = built
    found = {}
    for _, pictures in read(out):
        found |= dict(zip(pictures.names, zip(pictures.groups, pictures.weights, strict=True), strict=True))
    thumbs = next(entry["hexcode"].lower() for entry in data if entry.get("skins"))
    first, *rest = thumbs.split("-")
    toned = "-".join([first, "1f3fd", *rest])
    assert found[f"{thumbs}-3d.png"] == (thumbs, 10.0) and found[f"{thumbs}-flat.png"] == (thumbs, 5.0)
    assert found[f"{toned}-3d.png"] == (thumbs, 2.0) and found[f"{toned}-noto.png"] == (thumbs, 1.0)
    own = [weight for group, weight in found.values() if group == thumbs]
    assert len(own) == 18 and sum(own) == 40


def test_pictures(built: tuple[Path, EmojiSet]) -> None:
    """256 pixels, RGB; each picture shows the colour of its code and style in the right place."""
    out, made = built
    from_vector = 0
    for split, pictures in made.pictures.items():
        for picture in pictures:
            with Image.open(out / split / picture.file) as image:
                assert (image.format, image.mode, image.size) == ("PNG", "RGB", (256, 256))
                pixels = np.asarray(image)
            style = picture.style
            if picture.package == SHADED.name:
                from_vector, style = from_vector + 1, "shaded"
            colour, (x, y) = patch(picture.emoji.code, style)
            expected = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            code = picture.emoji.code
            assert np.abs(pixels[8 * y + 64, 8 * x + 64].astype(int) - expected).max() <= 1, code
    assert from_vector == 1  # the one that has no rendering


def test_the_shorter_name_of_a_duplicate_is_kept(built: tuple[Path, EmojiSet]) -> None:
    _, made = built
    names = {picture.emoji.name for pictures in made.pictures.values() for picture in pictures}
    assert "flag: Norway" in names and "flag: Svalbard & Jan Mayen" not in names


def test_an_alias_is_mirrored(few: dict[Package, Path], tmp_path: Path) -> None:
    """The last icon of a set is the one before it, seen in a mirror."""
    build(tmp_path / "out", few)
    found = {path.name: np.asarray(Image.open(path)).astype(int) for path in (tmp_path / "out").rglob("*.png")}
    before, last = found["1f304-flat.png"], found["1f305-flat.png"]
    assert np.abs(last - before[:, ::-1]).max() <= 1 and np.abs(last - before).max() > 50


def test_the_order_mixes_styles(built: tuple[Path, EmojiSet]) -> None:
    """The first 32 test prompts are a sample of them all."""
    out, _ = built
    lines = (out / "train" / "metadata.jsonl").read_text("utf-8").splitlines()[:48]
    styles = [json.loads(line)["style"] for line in lines]
    assert min(styles.count(style) for style in ("3d", "flat", "noto")) >= 8


def test_licences_and_the_readme(built: tuple[Path, EmojiSet], archives: dict[Package, Path]) -> None:
    out, made = built
    licences = json.loads((out / "licences.json").read_bytes())
    shipped = json.loads((SHIPPED / "licences.json").read_bytes())
    assert [*licences[0]] == [*shipped[0]] == ["part", "spdx", "attribution"]
    assert {each["spdx"] for each in licences} == {"MIT", "Apache-2.0"}
    assert [each["attribution"].split(",")[0] for each in licences] == [
        "Fluent Emoji", "Fluent Emoji", "Fluent Emoji", "Noto Emoji", "emojibase",
    ]  # fmt: skip
    sources = json.loads((out / "sources.json").read_bytes())
    flat = next(each for each in sources["packages"] if each["name"] == FLAT.name)
    assert (flat["version"], flat["integrity"]) == (FLAT.version, FLAT.integrity)
    assert flat["sha256"] == hashlib.sha256(archives[FLAT].read_bytes()).hexdigest()
    assert sources["tools"]["pillow"] and sources["tools"]["resvg_py"]
    assert sources["pictures"] == {name: len(pictures) for name, pictures in made.pictures.items()}
    card = (out / "README.md").read_text("utf-8")
    assert f"| `test/` | {len(made.pictures[Split.TEST])} |" in card
    assert f"{RENDERED.name} {RENDERED.version} | {RENDERED.attribution} | MIT |" in card


def test_the_same_packages_give_the_same_bytes(few: dict[Package, Path], tmp_path: Path) -> None:
    build(tmp_path / "one", few)
    build(tmp_path / "two", few)
    assert files(tmp_path / "one") == files(tmp_path / "two")


def test_a_set_is_replaced_and_anything_else_is_left_alone(few: dict[Package, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # empty: may be used
    build(out, few)
    (out / "train" / "stale.png").touch()
    build(out, few)
    assert not (out / "train" / "stale.png").exists()
    (out / "sources.json").unlink()
    before = files(out)
    with pytest.raises(DataError, match="out: expected nothing, or an emoji set to replace, found something else"):
        build(out, few)
    assert files(out) == before


def test_an_interrupted_build_leaves_what_was_there(few: dict[Package, Path], tmp_path: Path) -> None:
    out = tmp_path / "sets" / "out"
    build(out, few)
    before = files(out)

    def interrupt(what: str, done: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(out, few, interrupt)

    def fill(what: str, done: int) -> None:
        if what == "duplicates":
            (staging,) = out.parent.glob(".out.*")
            (staging / "README.md").symlink_to("/dev/full")

    with pytest.raises(DataError, match=r"out: could not be written \(.*No space left on device.*\); nothing was left"):
        build(out, few, fill)
    assert files(out) == before and list(out.parent.iterdir()) == [out]


def test_without_the_renderer(few: dict[Package, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(DataError, match=r"resvg_py, which is not installed; pip install 'hart-edge\[train\]'"):
        build(tmp_path / "out", few)
    assert not (tmp_path / "out").exists()


def test_a_picture_that_is_not_square_is_centred() -> None:
    pixels = drawings.render('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 2 1"><path d="M0 0h2v1h-2z"/></svg>')
    assert pixels.shape == (256, 256, 3)
    assert pixels[:63].min() == 255 and pixels[65:191].max() == 0 and pixels[193:].min() == 255


# The command


def test_the_command(run: Run, few: dict[Package, Path]) -> None:
    def by(a: Namespace) -> int:
        return command.run(a, lambda folder: StandIn(few, folder))

    status, out, err = run("data", "emoji", "--out", "set", "--packages", "here", by=by)
    assert (status, err) == (0, "")
    head, *rows = out.splitlines()
    last = rows.pop()
    rows = rows[: len(SPLITS)]  # what the columns mean stands below
    assert head.split() == ["folder", "pictures", "3d", "flat", "noto"]
    counts = {row.split()[0]: [int(cell) for cell in row.split()[1:]] for row in rows}
    assert [*counts] == [*SPLITS] and sum(row[0] for row in counts.values()) == 18
    assert all(row[0] == sum(row[1:]) for row in counts.values())
    assert last.startswith("set: 18 pictures with captions, ")
    status, out, _ = run("data", "emoji", "--out", "set", "--json", by=by)
    told = json.loads(out)
    assert status == 0 and told["out"] == "set" and told["duplicates"] == 0
    assert {split: [sum(styles.values()), *styles.values()] for split, styles in told["pictures"].items()} == counts


class StandIn(dict[Package, Path]):
    """Stands in for find_archives, for packages whose hashes are not pinned."""

    def __init__(self, archives: dict[Package, Path], folder: Path | None) -> None:
        super().__init__(archives)
        assert folder in (None, Path("here"))

    def __enter__(self) -> StandIn:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_the_command_without_packages(run: Run, tmp_path: Path) -> None:
    status, out, err = run("data", "emoji", "--out", "set", "--packages", tmp_path)
    assert (status, out) == (1, "")
    assert err == f"error: {tmp_path / RENDERED.archive}: missing; `npm pack @lobehub/fluent-emoji-3d@1.1.0` makes it\n"
    assert list(tmp_path.iterdir()) == []
