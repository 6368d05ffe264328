"""Reading a folder of pictures: how a file's pixels are converted, which files are left out, and the cache."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from hart_edge.data.errors import DataError
from hart_edge.data.pictures import CACHE, Pictures, decode, read_pictures

WHITE = [255, 255, 255]


def save(folder: Path, name: str, picture: Image.Image, **how: Any) -> Path:
    picture.save(folder / name, **how)
    return folder / name


def plain_folder(tmp_path: Path, count: int = 20, side: int = 8) -> Path:
    """Picture i is grey of level 10 * i; its caption is "grey i"."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(count):
        save(folder, f"{i}.png", Image.new("RGB", (side, side), (10 * i,) * 3))
    lines = "".join(f"{i}.png,grey {i}\n" for i in range(count))
    (folder / "metadata.csv").write_text(f"file_name,text\n{lines}", "utf-8")
    return folder


def cached(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder / CACHE).as_posix() for path in (folder / CACHE).rglob("*"))


# A file's pixels


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (2, 2), (200, 0, 0, 0))
    picture.putpixel((1, 0), (0, 0, 100, 255))
    picture.putpixel((0, 1), (0, 0, 0, 128))
    found = decode(save(tmp_path, "a.png", picture), 2)
    assert found.tolist() == [[WHITE, [0, 0, 100]], [[127, 127, 127], WHITE]]


def test_transparent_and_not_square_is_padded(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (4, 2), (0, 0, 0, 255))
    picture.putpixel((0, 0), (0, 0, 0, 0))
    found = decode(save(tmp_path, "a.png", picture), 4)
    assert found[:, :, 0].tolist() == [[255] * 4, [255, 0, 0, 0], [0] * 4, [255] * 4]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_opaque_and_not_square_is_cropped(tmp_path: Path, mode: str) -> None:
    picture = Image.new(mode, (6, 2), "red")
    picture.paste("blue", (2, 0, 4, 2))
    assert decode(save(tmp_path, "a.png", picture), 2).tolist() == [[[0, 0, 255]] * 2] * 2


def test_every_mode_becomes_rgb(tmp_path: Path) -> None:
    grey = Image.new("L", (2, 2), 77)
    deep = Image.fromarray(np.full((2, 2), 77 * 256 + 13, np.uint16))
    palette = Image.new("P", (2, 2), 1)
    palette.putpalette([0, 0, 0, 77, 77, 77])
    files = [
        save(tmp_path, "grey.png", grey),
        save(tmp_path, "deep.png", deep),
        save(tmp_path, "palette.png", palette),
        save(tmp_path, "animated.gif", palette, save_all=True, append_images=[Image.new("P", (2, 2), 0)]),
        save(tmp_path, "print.tif", Image.new("CMYK", (2, 2), (0, 0, 0, 255 - 77))),
        save(tmp_path, "bits.webp", grey.convert("RGB"), lossless=True),
    ]
    for file in files:
        assert decode(file, 2).tolist() == [[[77] * 3] * 2] * 2, file.name
    save(tmp_path, "clear.png", palette, transparency=1)
    assert decode(tmp_path / "clear.png", 2).tolist() == [[WHITE] * 2] * 2


def test_the_orientation_of_a_photograph_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (2, 2), "black")
    picture.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the scene is at the right of the stored picture
    file = save(tmp_path, "a.png", picture, exif=exif)
    assert decode(file, 2)[:, :, 0].tolist() == [[0, 255], [0, 0]]


def test_sizes(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), "white")
    picture.paste("black", (0, 0, 32, 64))
    small = decode(save(tmp_path, "a.png", picture), 8)
    assert small.shape == (8, 8, 3) and small.dtype == np.uint8
    assert small[0, :, 0].tolist() == pytest.approx([0, 0, 0, 0, 255, 255, 255, 255], abs=25)
    assert decode(tmp_path / "a.png", 96).shape == (96, 96, 3)


def test_too_many_pixels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="10 x 10 pixels; at most 99 are read"):
        decode(save(tmp_path, "a.png", Image.new("1", (10, 10))), 4, most_pixels=99)


# A folder


def test_pictures_in_the_order_of_the_captions(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path)
    (folder / "metadata.csv").unlink()
    lines = ['{"file_name": "3.png", "text": ["a", "b"], "more": 1}', '{"file_name": "1.png", "text": "c"}']
    lines += [f'{{"file_name": "{i}.png", "text": "x"}}' for i in range(20) if i not in (1, 3)]
    (folder / "metadata.jsonl").write_text("\n".join(lines), "utf-8")
    read = read_pictures(str(folder), 4)
    assert read.images.shape == (20, 4, 4, 3) and len(read) == 20 and not read.images.flags.writeable
    assert read.names[:3] == ("3.png", "1.png", "0.png")
    assert read.captions[:2] == (("a", "b"), ("c",))
    assert read.images[:, 0, 0, 0].tolist() == [30, 10, 0, 20, *range(40, 200, 10)]


def test_unusable_pictures_lose_their_groups_and_weights_too(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path)
    rows = "".join(f"{i}.png,grey {i},{i // 2},{i + 1}\n" for i in range(20))
    (folder / "metadata.csv").write_text(f"file_name,text,group,weight\n{rows}", "utf-8")
    (folder / "1.png").write_bytes(b"damaged")
    read = read_pictures(folder, 4)
    assert read.groups[:3] == ("0", "1", "1") and read.weights[:3] == (1.0, 3.0, 4.0) and len(read.groups) == 19


def test_one_in_twenty_may_be_unusable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = plain_folder(tmp_path)
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:45])
    with caplog.at_level(logging.WARNING):
        read = read_pictures(folder, 8)
    assert "7.png" not in read.names and len(read) == 19
    assert read.images[:, 0, 0, 0].tolist() == [10 * i for i in range(20) if i != 7]
    assert read.captions[7] == ("grey 8",)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2 and said[0].startswith(f"{folder}/7.png: not readable as an image (")
    assert said[1] == f"{folder}: 1 of 20 pictures left out"
    caplog.clear()
    assert read_pictures(folder, 8).names == read.names  # from the cache, with the same warnings
    assert [record.getMessage() for record in caplog.records] == said


def test_more_than_one_in_twenty_stops(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path)
    (folder / "7.png").unlink()
    save(folder, "new.png", Image.new("L", (8, 8)))
    expected = (
        r"at most 5% of them unusable, found 2 of 21 unusable "
        r"\(new.png: no caption: not in metadata.csv; 7.png: no such file\); mend or remove them$"
    )
    with pytest.raises(DataError, match=expected):
        read_pictures(folder, 8)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40), b"GIF89a" + bytes(9)])
def test_files_that_are_no_images(tmp_path: Path, content: bytes) -> None:
    folder = plain_folder(tmp_path)
    (folder / "19.png").write_bytes(content)
    assert len(read_pictures(folder, 8)) == 19


def test_nothing_usable(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,text\n", "utf-8")
    with pytest.raises(DataError, match=r"found 0 of 0 unusable \(it names no pictures\)"):
        read_pictures(tmp_path, 8)
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,x\n", "utf-8")
    with pytest.raises(DataError, match=r"found 1 of 1 unusable \(a.png: no such file\)"):
        read_pictures(tmp_path, 8)
    with pytest.raises(DataError, match="side: expected 1 to 4096, found 0"):
        read_pictures(tmp_path, 0)


def test_pictures_must_fit_together() -> None:
    with pytest.raises(ValueError, match=r"expected \(N, side, side, 3\) uint8, found \(1, 2, 2\) uint8"):
        Pictures(np.zeros((1, 2, 2), np.uint8), (("a",),), ("a.png",))
    with pytest.raises(ValueError, match="found 1 images, 2 captions, 1 names"):
        Pictures(np.zeros((1, 2, 2, 3), np.uint8), (("a",), ("b",)), ("a.png",))
    message = "expected a group and a weight for each of 1 images or for none, found 1 groups, 2 weights"
    with pytest.raises(ValueError, match=message):
        Pictures(np.zeros((1, 2, 2, 3), np.uint8), (("a",),), ("a.png",), ("x",), (1.0, 1.0))


# The cache


def test_the_second_start_decodes_nothing(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path)
    first = read_pictures(folder, 4)
    again = read_pictures(folder, 4, decoder=lambda file, side: pytest.fail(f"{file} was decoded again"))
    assert isinstance(again.images, np.memmap)
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.names, first.captions) == (again.names, again.captions)
    text = (folder / "metadata.csv").read_text("utf-8").replace("grey 3", "dark")
    (folder / "metadata.csv").write_text(text, "utf-8")
    assert read_pictures(folder, 4).captions[3] == ("dark",)  # captions are read every time


def test_a_changed_file_is_read_again_and_the_old_cache_is_deleted(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path)
    read_pictures(folder, 4)
    read_pictures(folder, 8)
    before = cached(folder)
    assert len(before) == 6  # for each side a folder of two files
    times = os.stat(folder / "5.png")
    save(folder, "5.png", Image.new("RGB", (8, 8), (51,) * 3))
    os.utime(folder / "5.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert read_pictures(folder, 4).images[5, 0, 0, 0] == 51
    after = cached(folder)
    assert len(after) == 6
    assert [name for name in after if name.startswith("8-")] == [name for name in before if name.startswith("8-")]
    shutil.rmtree(folder / CACHE)
    assert read_pictures(folder, 8).images[5, 0, 0, 0] == 51


@pytest.mark.parametrize("damage", ["short images", "no index", "index of another time"])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, damage: str) -> None:
    folder = plain_folder(tmp_path)
    expected = np.array(read_pictures(folder, 4).images)
    (entry,) = (folder / CACHE).iterdir()
    if damage == "short images":
        os.truncate(entry / "images.bin", 100)
    elif damage == "no index":
        (entry / "index.json").unlink()
    else:
        (entry / "index.json").write_text('{"images": 19, "problems": {}}')
    np.testing.assert_array_equal(read_pictures(folder, 4).images, expected)
    assert len(cached(folder)) == 3


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = plain_folder(tmp_path)
    (folder / CACHE).touch()  # in the way of the cache, as a read-only folder is
    read = read_pictures(folder, 4)
    assert read.images[:, 0, 0, 0].tolist() == list(range(0, 200, 10)) and not read.images.flags.writeable
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{folder}/{CACHE}: cannot be written (")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    folder = plain_folder(tmp_path)

    def filling(file: Path, side: int) -> NDArray[np.uint8]:
        if file.name == "0.png":
            (staging,) = (folder / CACHE).iterdir()
            (staging / "index.json").symlink_to("/dev/full")
        return decode(file, side)

    with pytest.raises(DataError, match=r"could not be written \(.*No space left on device.*\); make room"):
        read_pictures(folder, 4, decoder=filling)
    assert cached(folder) == []
    assert len(read_pictures(folder, 4)) == 20


def test_another_process_wrote_the_cache_first(tmp_path: Path) -> None:
    """The files of the other process are used, and those of this one are deleted."""
    folder = plain_folder(tmp_path)

    def overtaken(file: Path, side: int) -> NDArray[np.uint8]:
        if file.name == "0.png":
            read_pictures(folder, side)
        return decode(file, side)

    assert read_pictures(folder, 4, decoder=overtaken).images[:, 0, 0, 0].tolist() == list(range(0, 200, 10))
    assert len(cached(folder)) == 3


def test_progress_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = plain_folder(tmp_path, count=3)
    with caplog.at_level(logging.INFO):
        read_pictures(folder, 4, log_seconds=0.0)
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"{folder}: {done} of 3 pictures decoded" for done in (1, 2, 3)]
