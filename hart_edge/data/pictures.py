"""A folder of pictures with captions -> arrays that training reads.

In: any folder in the imagefolder layout (metadata.py). Out: Pictures. Decoding takes a while, so its result is kept
in the folder, in .hart-edge/, under a key of all that was read; the next start maps that file. The folder .hart-edge
can be removed at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hart_edge.data.depth import eight_bits
from hart_edge.data.errors import DataError
from hart_edge.data.metadata import Metadata, read_metadata
from hart_edge.errors import READING_FAULTS, border
from hart_edge.staging import OWNER_FILE, staged_folder

log = logging.getLogger(__name__)

CACHE, IMAGES_FILE, INDEX_FILE = ".hart-edge", "images.bin", "index.json"
FORMAT = 2  # of the cache, and of what decode() makes of a file; raised whenever either changes
LARGEST_SHARE = 0.05  # of the pictures of a folder may be unusable
LARGEST_SIDE = 4096
LARGEST_PIXELS = 2**26  # of a file
LOG_SECONDS = 5.0  # between two lines of progress
AHEAD = 64  # pictures that are decoded before they are needed
Decode = Callable[[Path, int], NDArray[np.uint8]]  # decode() has this type
Decoded = tuple[NDArray[np.uint8], dict[str, str]]  # (N, side, side, 3); file name -> why it could not be decoded


@dataclass(frozen=True)
class Pictures:
    """images: (N, side, side, 3) uint8 RGB, read-only; captions: N times at least one, the first is the canonical one;
    names: the file names; groups: what pictures have in common, "" for nothing; weights: above 0, how often each is
    drawn among those of its group. No groups and no weights: () each.
    """

    images: NDArray[np.uint8]
    captions: tuple[tuple[str, ...], ...]
    names: tuple[str, ...]
    groups: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.shape[3] != 3 or self.images.dtype != np.uint8:
            raise ValueError(f"expected (N, side, side, 3) uint8, found {self.images.shape} {self.images.dtype}")
        if not len(self.images) == len(self.captions) == len(self.names):
            raise ValueError(
                f"expected as many captions and names as images, found {len(self.images)} images, "
                f"{len(self.captions)} captions, {len(self.names)} names"
            )
        if {len(self.groups), len(self.weights)} - {0, len(self.names)}:
            raise ValueError(
                f"expected a group and a weight for each of {len(self.names)} images or for none, found "
                f"{len(self.groups)} groups, {len(self.weights)} weights"
            )

    def __len__(self) -> int:
        return len(self.names)


def read_pictures(
    folder: str | Path, side: int, *, decoder: Decode | None = None, log_seconds: float = LOG_SECONDS
) -> Pictures:
    """Read a folder of pictures at side x side pixels, in the order of its captions file.

    Transparent pixels become white. What is not square is padded with white where it has transparent pixels, and cut
    to the middle square where it has none. Pictures that cannot be used (a file that is missing or damaged, no caption)
    are logged by name and left out. decoder: makes an array of a file (decode()); log_seconds: seconds between lines of
    progress. Raises DataError where more than 5 % of the pictures cannot be used, or nothing is left.
    """
    if not 1 <= side <= LARGEST_SIDE:
        raise DataError(f"side: expected 1 to {LARGEST_SIDE}, found {side}")
    problem, remedy = "the pictures cannot be read", "mend the folder, or name another"
    with border(DataError, folder, problem, remedy, programming=READING_FAULTS):
        return _read(Path(folder), side, decoder or decode, log_seconds)


def _read(folder: Path, side: int, decoder: Decode, log_seconds: float) -> Pictures:
    metadata = read_metadata(folder)
    entry = folder / CACHE / f"{side}-{_key(folder, side, metadata)}"
    images, undecoded = _from_cache(entry, side) or _Decoding(folder, side, metadata, decoder, log_seconds).into(entry)
    problems = [*metadata.problems, *undecoded.items()]
    total = len(metadata.rows) + len(metadata.problems)
    for name, trouble in problems:
        log.warning("%s: %s; left out", folder / name, trouble)
    if len(problems) > LARGEST_SHARE * total or total == len(problems):
        first = "; ".join(f"{name}: {trouble}" for name, trouble in problems[:3]) or "it names no pictures"
        raise DataError(
            f"{folder}: expected pictures with captions, at most {LARGEST_SHARE:.0%} of them unusable, found "
            f"{len(problems)} of {total} unusable ({first}{', ...' if len(problems) > 3 else ''}); mend or remove them"
        )
    if problems:
        log.warning("%s: %d of %d pictures left out", folder, len(problems), total)
    names, captions, groups, weights = zip(*(row for row in metadata.rows if row.name not in undecoded), strict=True)
    return Pictures(images, captions, names, groups, weights)


def decode(file: Path, side: int, most_pixels: int = LARGEST_PIXELS) -> NDArray[np.uint8]:
    """An image file as (side, side, 3) uint8 RGB; of an animation the first picture.

    Raises what Pillow raises where that cannot be, ValueError where the file has more than most_pixels, or numbers of
    which nobody knows what is white (depth.py).
    """
    with Image.open(file) as opened:
        if opened.width * opened.height > most_pixels:
            raise ValueError(f"{opened.width} x {opened.height} pixels; at most {most_pixels:,} are read")
        picture = eight_bits(ImageOps.exif_transpose(opened), opened.format)
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
        if picture.mode == "RGBA" and np.asarray(picture.getchannel("A")).min() < 255:
            picture = _padded(picture)
        else:
            picture = _middle(picture.convert("RGB"))
    if picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.asarray(picture)


def _padded(picture: Image.Image) -> Image.Image:
    """The picture in the middle of a white square."""
    size = max(picture.size)
    ground = Image.new("RGBA", (size, size), "white")
    ground.alpha_composite(picture, ((size - picture.width) // 2, (size - picture.height) // 2))
    return ground.convert("RGB")


def _middle(picture: Image.Image) -> Image.Image:
    """The middle square of the picture."""
    size = min(picture.size)
    left, top = (picture.width - size) // 2, (picture.height - size) // 2
    return picture.crop((left, top, left + size, top + size))


def _key(folder: Path, side: int, metadata: Metadata) -> str:
    """Changes with every file that is read: its name, size and times, and the order. Captions are not in the cache."""
    digest = hashlib.sha256(f"{FORMAT} {side} {PIL.__version__}\n".encode())
    for row in metadata.rows:
        try:
            stat = (folder / row.name).stat()
            digest.update(f"{row.name}\0{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}\n".encode())
        except OSError:
            digest.update(f"{row.name}\0\n".encode())
    return digest.hexdigest()[:16]


def _from_cache(entry: Path, side: int) -> Decoded | None:
    """What an earlier call left in `entry`; None where there is nothing, or not all of it."""
    try:
        index = json.loads((entry / INDEX_FILE).read_text("utf-8"))
        shape = (int(index["images"]), side, side, 3)
        if (entry / IMAGES_FILE).stat().st_size != math.prod(shape) or shape[0] == 0:
            return None
        return np.memmap(entry / IMAGES_FILE, np.uint8, "r", shape=shape), dict(index["problems"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class _Decoding:
    """All pictures of a folder, to be decoded. The fields are those of read_pictures."""

    folder: Path
    side: int
    metadata: Metadata
    decoder: Decode
    log_seconds: float

    def into(self, entry: Path) -> Decoded:
        """Decode every picture, into the cache where the folder can be written, else into memory."""
        with contextlib.ExitStack() as stack:
            try:
                entry.parent.mkdir(exist_ok=True)
                staging = stack.enter_context(staged_folder(entry.parent / f"{self.side}"))
            except OSError as error:
                message = "%s: cannot be written (%s), so the pictures are decoded at every start"
                log.warning(message, entry.parent, error)
                return self._into_memory()
            return self._into(staging, entry)

    def _into_memory(self) -> Decoded:
        memory = io.BytesIO()
        count, problems = self._write(memory)
        images = np.ndarray((count, self.side, self.side, 3), np.uint8, memory.getbuffer())
        images.flags.writeable = False
        return images, problems

    def _into(self, staging: Path, entry: Path) -> Decoded:
        side = self.side
        try:
            with (staging / IMAGES_FILE).open("wb") as file:
                count, problems = self._write(file)
            if count == 0:
                return np.empty((0, side, side, 3), np.uint8), problems
            (staging / INDEX_FILE).write_text(json.dumps({"images": count, "problems": problems}), encoding="utf-8")
            for old in entry.parent.glob(f"{side}-*"):
                if old != entry or _from_cache(entry, side) is None:
                    shutil.rmtree(old, ignore_errors=True)
            (staging / OWNER_FILE).unlink(missing_ok=True)
            try:
                staging.rename(entry)
            except OSError:  # another process was quicker
                if _from_cache(entry, side) is None:
                    raise
        except OSError as error:
            raise DataError(f"{entry}: the decoded pictures could not be written ({error}); make room") from error
        done = _from_cache(entry, side)
        if done is None:
            raise DataError(f"{entry}: changed while it was written; start again")
        return done

    def _write(self, file: BinaryIO) -> tuple[int, dict[str, str]]:
        """Append the pictures that can be decoded to `file`: (how many, those that cannot with the reason)."""
        count, problems, said = 0, dict[str, str](), time.monotonic()
        names = [row.name for row in self.metadata.rows]
        for index, (name, result) in enumerate(self._decoded(names)):
            if isinstance(result, str):
                problems[name] = result
            else:
                file.write(result.tobytes())
                count += 1
            if time.monotonic() - said > self.log_seconds:
                said = time.monotonic()
                log.info("%s: %d of %d pictures decoded", self.folder, index + 1, len(names))
        return count, problems

    def _decoded(self, names: list[str]) -> Iterator[tuple[str, NDArray[np.uint8] | str]]:
        """(name, picture or what is wrong with it), in order, decoded by several threads."""

        def attempt(name: str) -> NDArray[np.uint8] | str:
            try:
                return self.decoder(self.folder / name, self.side)
            except FileNotFoundError:
                return "no such file"
            except Exception as error:  # damaged files make Pillow raise nearly anything, and one must not stop all
                return f"not readable as an image ({error})"

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            waiting: deque[tuple[str, Future[NDArray[np.uint8] | str]]] = deque()
            for name in names:
                waiting.append((name, pool.submit(attempt, name)))
                if len(waiting) >= AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for first, future in waiting:
                yield first, future.result()
