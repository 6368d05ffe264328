"""A file of prompts: .txt with one a line, .csv or .jsonl with `prompt` (or `text`, as in metadata.jsonl) and maybe
`seed`.

In: a file. Out: what is to be drawn, in the file's order, each with a seed of its own: the file's, or the batch's and
the prompt's place added. So a picture depends on its line, and not on who draws it or what was drawn before.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hart_edge.data.errors import DataError
from hart_edge.data.metadata import utf8_text
from hart_edge.errors import InputError
from hart_edge.runtime.random import check_seed

KEYS = ("prompt", "text")
EXPECTED = "expected a .txt file with a prompt on each line, or .csv or .jsonl with prompt (or text) and maybe seed"
SEEDS = 2**64


@dataclass(frozen=True)
class Item:
    """A picture of a batch. place: counted from 0, its file's name; line: of the file, for messages."""

    place: int
    prompt: str
    seed: int
    line: int

    @property
    def file_name(self) -> str:
        return f"{self.place:06d}.png"


def read_prompts(file: Path, seed: int) -> list[Item]:
    """What a file asks for. seed: of the first prompt that has none of its own. Raises InputError with the line."""
    check_seed(seed)
    readers = {".txt": _lines, ".csv": _csv_rows, ".jsonl": _jsonl_rows}
    try:
        file.stat()
        if file.suffix.lower() not in readers:
            raise InputError(f"{file}: {EXPECTED}, found {file.suffix or 'no ending'!r}")
        text = utf8_text(file, file.read_bytes())
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file; {EXPECTED}") from error
    except OSError as error:
        raise InputError(f"{file}: {EXPECTED}, found {error}") from error
    except DataError as error:
        raise InputError(str(error)) from error
    items: list[Item] = []
    for line, row in readers[file.suffix.lower()](file, text):
        prompt, own = _prompt(file, line, row), row.get("seed")
        try:
            chosen = (seed + len(items)) % SEEDS if own in (None, "") else check_seed(_number(own))
        except InputError as error:
            raise InputError(f"{file}, line {line}: {error}") from error
        items.append(Item(len(items), prompt, chosen, line))
    if not items:
        raise InputError(f"{file}: {EXPECTED}, found none; write what to draw")
    return items


def _lines(file: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    yield from ((line, {"prompt": words}) for line, words in enumerate(text.splitlines(), 1) if words.strip())


def _csv_rows(file: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        if not set(KEYS) & set(reader.fieldnames or ()):
            found = ", ".join(reader.fieldnames or ()) or "none"
            raise InputError(f"{file}: expected a column prompt or text, found {found}; name it so")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{file}, after line {reader.line_num}: expected CSV, found {error}; mend it") from error


def _jsonl_rows(file: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, words in enumerate(text.split("\n"), 1):
        if not words.strip():
            continue
        try:
            row = json.loads(words)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file}, line {line}: expected a JSON object, found {error}; mend it") from error
        if not isinstance(row, dict):
            raise InputError(f"{file}, line {line}: expected a JSON object, found {words[:60]!r}; mend it")
        yield line, row


def _prompt(file: Path, line: int, row: Mapping[str, Any]) -> str:
    """The prompt of a row; of several captions, as metadata.jsonl may have them, the first."""
    value = next((row[key] for key in KEYS if row.get(key) is not None), None)
    value = value[0] if isinstance(value, list) and value else value
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{file}, line {line}: expected words as prompt, found {value!r}; say what to draw")
    return value.strip()


def _number(value: Any) -> Any:
    """The integer of a CSV field; what is none is left for check_seed() to refuse."""
    return int(value) if isinstance(value, str) and value.strip().isdecimal() and value.isascii() else value
