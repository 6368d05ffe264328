"""JSON values in, checked Python values out: what manifest.py, plan.py and their neighbours are read and written with.

A format is declared once, as frozen dataclasses whose annotations say what each key may hold:
`top_k: tuple[Annotated[int, integer(1, 1024)], ...]`. `read` follows the annotations, refuses everything they
do not name and says where, in JSON terms; `plain` is its inverse.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, Any, NoReturn, TypeVar

from hart_edge.errors import BundleError

REMEDY = "rebuild the bundle with python -m export.build"
SHOWN = 60  # characters of a foreign value that a message repeats

T = TypeVar("T")
Reader = Callable[[object, str], Any]


def refuse(where: str, expected: str, found: str, remedy: str = REMEDY) -> NoReturn:
    """Raise the BundleError for the value at JSON path `where`."""
    raise BundleError(f"manifest.json: {where or 'top level'}: expected {expected}, found {found}; {remedy}")


def show(value: object) -> str:
    """A foreign value as one short, harmless line (json.dumps escapes control characters)."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    line = json.dumps(value)
    return line if len(line) <= SHOWN else line[:SHOWN] + "..."


def below(where: str, key: str) -> str:
    """The JSON path of `key` in the object at `where`: plan.buffers.x, files["graphs/decoder.onnx"]."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", key):
        return f"{where}[{show(key)}]"
    return f"{where}.{key}" if where else key


# Leaf readers: each returns a function (value, where) -> value.


def integer(low: int, high: int) -> Reader:
    """An integer in [low, high]; true, 1.0 and "1" are none."""

    def read_integer(value: object, where: str) -> int:
        if type(value) is not int or not low <= value <= high:
            refuse(where, f"an integer from {low} to {high}", show(value))
        return value

    return read_integer


def number(low: float, high: float) -> Reader:
    """A finite number in [low, high], returned as float."""

    def read_number(value: object, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            found = "a number that is not finite" if value in (math.inf, -math.inf) else show(value)
            refuse(where, f"a number from {low:g} to {high:g}", found)
        return float(value)

    return read_number


def text(most: int, pattern: str = r"[^\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]*", named: str = "text") -> Reader:
    """A string of at most `most` characters that matches `pattern` as a whole; the default keeps out control
    characters (C runners stop at NUL) and lone surrogates (no UTF-8 has them)."""
    allowed = re.compile(pattern)

    def read_text(value: object, where: str) -> str:
        if not isinstance(value, str) or len(value) > most or not allowed.fullmatch(value):
            refuse(where, f"{named} of at most {most} characters", show(value))
        return value

    return read_text


def choice(enum: type[StrEnum]) -> Reader:
    """A member of `enum`."""

    def read_choice(value: object, where: str) -> StrEnum:
        if not isinstance(value, str) or value not in enum.__members__.values():
            refuse(where, "one of " + ", ".join(enum), show(value))
        return enum(value)

    return read_choice


def relative_path(value: object, where: str) -> str:
    """A file of the bundle: a relative POSIX path that cannot leave the folder on any system."""
    expected = 'a path inside the bundle (relative, forward slashes, no "..")'
    if not isinstance(value, str) or len(value) > 1000:
        refuse(where, expected, show(value))
    if re.search(r"[\x00-\x1f\x7f\\:\ud800-\udfff]", value):  # NUL, backslash, drive letters, NTFS streams
        refuse(where, expected, show(value))
    if any(part in ("", ".", "..") for part in value.split("/")):  # "" also stands for a leading slash
        refuse(where, expected, show(value))
    return value


class Length:
    """Bounds on the number of entries: `Annotated[tuple[Step, ...], Length(1, 10_000)]`."""

    def __init__(self, low: int, high: int) -> None:
        self.low, self.high = low, high


# Compound readers, chosen by the annotation.


def _many(entry: Reader, bound: Length) -> Reader:
    def read_many(value: object, where: str) -> tuple[Any, ...]:
        if not isinstance(value, list) or not bound.low <= len(value) <= bound.high:
            refuse(where, f"a list of {bound.low} to {bound.high} entries", show(value))
        return tuple(entry(item, f"{where}[{index}]") for index, item in enumerate(value))

    return read_many


def _table(key: Reader, entry: Reader, bound: Length) -> Reader:
    def read_table(value: object, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            refuse(where, "an object", show(value))
        if not bound.low <= len(value) <= bound.high:
            refuse(where, f"an object of {bound.low} to {bound.high} keys", f"{len(value)} keys")
        checked = {}
        for name, item in value.items():
            at = below(where, name)
            checked[key(name, at)] = entry(item, at)
        return checked

    return read_table


def _flag(value: object, where: str) -> bool:
    if not isinstance(value, bool):
        refuse(where, "true or false", show(value))
    return value


def _optional(reader: Reader) -> Reader:
    return lambda value, where: None if value is None else reader(value, where)


def _reader(hint: Any, bound: Length | None = None) -> Reader:
    """The reader that an annotation asks for."""
    bound = bound or Length(0, 100_000)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        inner, detail = arguments
        return _reader(inner, detail) if isinstance(detail, Length) else typing.cast(Reader, detail)
    if origin is types.UnionType or origin is typing.Union:
        return _optional(_reader(next(each for each in arguments if each is not types.NoneType)))
    if origin is tuple:
        return _many(_reader(arguments[0]), bound)
    if origin is dict:
        return _table(_reader(arguments[0]), _reader(arguments[1]), bound)
    if hint is bool:
        return _flag
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return choice(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return functools.partial(read, hint)
    raise TypeError(f"no reader for the annotation {hint!r}")


@functools.cache
def _readers(cls: Callable[..., object]) -> Mapping[str, Reader]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {key: _reader(hint) for key, hint in hints.items()}


def read(cls: Callable[..., T], value: object, where: str) -> T:
    """The dataclass `cls` from a JSON object that has exactly its keys.

    Where the keys depend on a value beside them, `cls.keys_for(object)` names them; the others stay None.
    """
    if not isinstance(value, dict):
        refuse(where, "an object", show(value))
    readers = _readers(cls)
    keys_for = getattr(cls, "keys_for", None)
    wanted = frozenset(readers) if keys_for is None else keys_for(value)
    for key in readers:
        if key in wanted and key not in value:
            refuse(below(where, key), "this key", "none")
    for key in value:
        if key not in wanted:
            refuse(where, "no keys but " + ", ".join(key for key in readers if key in wanted), show(key))
    return cls(**{key: readers[key](item, below(where, key)) for key, item in value.items()})


def plain(value: object) -> object:
    """A checked value as JSON types; the inverse of `read`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        keys_for = getattr(value, "keys_for", None)
        wanted = frozenset(pairs) if keys_for is None else keys_for(pairs)
        return {key: item for key, item in pairs.items() if key in wanted}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in sorted(value.items())}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, StrEnum) else value
