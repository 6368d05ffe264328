"""The captions file of a folder of pictures: metadata.csv or metadata.jsonl, the imagefolder layout.

In: a folder. Out: file names with their captions in the file's order, how often training may draw them, and what is
wrong with the rest, by name.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hart_edge.data.errors import DataError

CSV_FILE, JSONL_FILE = "metadata.csv", "metadata.jsonl"
ENDINGS = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
SURPLUS = "\0surplus"  # the key of a CSV row's further fields, which no column can have
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
EXPECTED = f"expected {CSV_FILE} (columns file_name and text) or {JSONL_FILE} (keys file_name and text)"


class Row(NamedTuple):
    """One picture. captions: at least one; group: what it shares with others, "" for none; weight: above 0, how often
    it is drawn among those of its group.
    """

    name: str
    captions: tuple[str, ...]
    group: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class Metadata:
    """rows: in the file's order; problems: (file name, what is wrong)."""

    rows: tuple[Row, ...]
    problems: tuple[tuple[str, str], ...]


def read_metadata(folder: Path) -> Metadata:
    """The captions of a folder. Raises DataError where there is no captions file, or one that cannot be read at all.

    A row without caption, with a name or a weight that cannot be used, a name that comes twice, and an image that no
    row names are problems of that picture alone. Whether the files can be opened is not looked at here.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder of pictures, found {'a file' if folder.exists() else 'nothing'}")
    files = [folder / name for name in (CSV_FILE, JSONL_FILE) if (folder / name).is_file()]
    if len(files) != 1:
        found = "both" if files else "neither"
        raise DataError(f"{folder}: {EXPECTED}, found {found}; {'keep one' if files else 'write one'}")
    rows: dict[str, Row] = {}
    problems: list[tuple[str, str]] = []
    for raw in _rows(files[0]):
        name = raw["file_name"]
        row = Row(name, _captions(raw.get("text")), _group(raw.get("group")), _weight(raw.get("weight")))
        if trouble := _unusable(row, raw, rows):
            problems.append((name or files[0].name, trouble))
        else:
            rows[name] = row
    named = {Path(name).as_posix() for name in (*rows, *(name for name, _ in problems))}  # "./a.png" is a.png
    problems += [(name, f"no caption: not in {files[0].name}") for name in images(folder) if name not in named]
    return Metadata(tuple(rows.values()), tuple(problems))


def images(folder: Path) -> list[str]:
    """The image files in a folder and below, as names relative to it; nothing in hidden folders."""
    names = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
    return sorted(name.as_posix() for name in names if not any(part.startswith(".") for part in name.parts))


def _unusable(row: Row, raw: dict[str, Any], rows: dict[str, Row]) -> str | None:
    name, path = row.name, Path(row.name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        return f"expected a path inside the folder as file_name, found {name!r}"
    if any(map(str.strip, raw.get(SURPLUS, ()))):  # commas at the end of a line cut nothing
        return f"{len(raw[SURPLUS])} more fields than columns: put quotes around a caption that holds commas"
    for field, values in (("file_name", (name,)), ("text", row.captions), ("group", (row.group,))):
        if trouble := next(filter(None, map(_unfit, values)), None):
            return f"{field} holds {trouble}"
    if name in rows:
        return "named twice; the first row counts"
    if not row.captions:
        return "no caption: text is empty"
    if not (math.isfinite(row.weight) and row.weight > 0):
        return f"expected a weight above 0, found {raw['weight']!r}"
    return None


def _unfit(text: str) -> str | None:
    """What no tokenizer and no file of ours takes, as a mistake in JSON escapes and cut strings leave it behind."""
    if LONE_SURROGATE.search(text):
        return "half a character (a lone surrogate)"
    return "a NUL character" if "\0" in text else None


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    """The rows as they were written; file_name is a string."""
    try:
        text = utf8_text(file, file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: expected UTF-8 text, found {error}; write it anew") from error
    yield from _csv_rows(file, text) if file.name == CSV_FILE else _jsonl_rows(file, text)


def utf8_text(file: Path, contents: bytes) -> str:
    """The contents as UTF-8, with or without a mark at the beginning. Other encodings are refused by name."""
    excel = 'save it as UTF-8 (Excel: "CSV UTF-8")'
    if contents.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise DataError(f"{file}: expected UTF-8 text, found UTF-32; {excel}, or iconv -f UTF-32 -t UTF-8")
    if contents.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in contents[:4]:
        raise DataError(f"{file}: expected UTF-8 text, found UTF-16; {excel}, or iconv -f UTF-16 -t UTF-8")
    try:
        return contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = contents.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{file}: expected UTF-8 text, found byte 0x{contents[error.start]:02x} in line {line}, as in Latin-1 or "
            f"Windows-1252; {excel}, or iconv -f WINDOWS-1252 -t UTF-8; write it anew"
        ) from error


def _csv_rows(file: Path, text: str) -> Iterator[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), restkey=SURPLUS, strict=True)
    try:
        columns = reader.fieldnames or ()
        if not {"file_name", "text"} <= set(columns):
            found = ", ".join(columns) or "none"
            for mark, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
                if len(columns) == 1 and mark in columns[0]:
                    raise DataError(f"{file}: expected commas between columns, found {name}; save it with commas")
            raise DataError(f"{file}: expected columns file_name and text, found {found}; name them so")
        for row in reader:
            yield {**row, "file_name": row["file_name"] or ""}
    except csv.Error as error:
        raise DataError(f"{file}, after line {reader.line_num}: expected CSV, found {error}; mend it") from error


def _jsonl_rows(file: Path, text: str) -> Iterator[dict[str, Any]]:
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
        yield row


def _captions(text: Any) -> tuple[str, ...]:
    """The captions of a row, a string or a list of strings: stripped, without empty and repeated ones."""
    given = text if isinstance(text, list) else [text]
    return tuple(dict.fromkeys(each.strip() for each in given if isinstance(each, str) and each.strip()))


def _group(value: Any) -> str:
    """A row's group as text: its string or number; any other value means no group."""
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _weight(value: Any) -> float:
    """A row's weight: 1 where none is given, nan where it is not a number."""
    if value is None or value == "":
        return 1.0
    try:
        return math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
