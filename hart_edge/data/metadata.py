"""The captions file of a folder of pictures: metadata.csv or metadata.jsonl, the imagefolder layout.

In: a folder. Out: file names with their captions in the file's order, and what is wrong with the rest, by name.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hart_edge.data.errors import DataError

CSV_FILE, JSONL_FILE = "metadata.csv", "metadata.jsonl"
ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
EXPECTED = f"expected {CSV_FILE} (columns file_name and text) or {JSONL_FILE} (keys file_name and text)"


@dataclass(frozen=True)
class Metadata:
    """rows: (file name, its captions, at least one) in the file's order; problems: (file name, what is wrong)."""

    rows: tuple[tuple[str, tuple[str, ...]], ...]
    problems: tuple[tuple[str, str], ...]


def read_metadata(folder: Path) -> Metadata:
    """The captions of a folder. Raises DataError where there is no captions file, or one that cannot be read at all.

    A row without caption or with a name that cannot be used, a name that comes twice, and an image that no row names
    are problems of that picture alone. Whether the files can be opened is not looked at here.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of pictures, found {'a file' if folder.exists() else 'nothing'}")
    files = [folder / name for name in (CSV_FILE, JSONL_FILE) if (folder / name).is_file()]
    if len(files) != 1:
        found = "both" if files else "neither"
        raise DataError(f"{folder}: {EXPECTED}, found {found}; {'keep one' if files else 'write one'}")
    rows: dict[str, tuple[str, ...]] = {}
    problems: list[tuple[str, str]] = []
    for name, captions in _rows(files[0]):
        if trouble := _unusable(name, captions, rows):
            problems.append((name or files[0].name, trouble))
        else:
            rows[name] = captions
    named = {Path(name).as_posix() for name in (*rows, *(name for name, _ in problems))}  # "./a.png" is a.png
    problems += [(name, f"no caption: not in {files[0].name}") for name in images(folder) if name not in named]
    return Metadata(tuple(rows.items()), tuple(problems))


def images(folder: Path) -> list[str]:
    """The image files in a folder and below, as names relative to it; nothing in hidden folders."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    return sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))


def _unusable(name: str, captions: tuple[str, ...], rows: dict[str, tuple[str, ...]]) -> str | None:
    path = Path(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        return f"expected a path inside the folder as file_name, found {name!r}"
    if name in rows:
        return "named twice; the first row counts"
    if not captions:
        return "no caption: text is empty"
    return None


def _rows(file: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: expected UTF-8 text, found {error}; write it anew") from error
    yield from _csv_rows(file, text) if file.name == CSV_FILE else _jsonl_rows(file, text)


def _csv_rows(file: Path, text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        columns = reader.fieldnames or ()
        if not {"file_name", "text"} <= set(columns):
            found = ", ".join(columns) or "none"
            raise DataError(f"{file}: expected columns file_name and text, found {found}; name them so")
        for row in reader:
            yield row["file_name"] or "", _captions(row["text"])
    except csv.Error as error:
        raise DataError(f"{file}, after line {reader.line_num}: expected CSV, found {error}; mend it") from error


def _jsonl_rows(file: Path, text: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file}, line {number}: expected a JSON object, found {error}; mend it") from error
        if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
            raise DataError(
                f"{file}, line {number}: expected an object with file_name and text, found {line[:60]!r}; mend it"
            )
        yield row["file_name"], _captions(row.get("text"))


def _captions(text: Any) -> tuple[str, ...]:
    """The captions of a row: a string or a list of them; without white space around, empty and repeated ones."""
    given = text if isinstance(text, list) else [text]
    return tuple(dict.fromkeys(each.strip() for each in given if isinstance(each, str) and each.strip()))
