"""The C tokenizer and the tokenizers package with one interface, so that tests can compare them."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_int, c_int64, c_size_t, c_uint64, c_void_p
from typing import Any

import numpy as np
import tokenizers

from tests.runtime.native.library import Status

MESSAGE = 4096


class RefusedError(Exception):
    """A call that threw in C."""

    def __init__(self, status: int, message: bytes) -> None:
        self.status, self.message = Status(status), message.decode("utf-8")
        super().__init__(self.message)


class CTokenizer:
    """The C tokenizer of a tokenizer.json."""

    def __init__(self, doors: Any, definition: str | bytes) -> None:
        self._pointer, self._doors = c_void_p(), doors
        doors.door_tokenizer_open.argtypes = (c_char_p, c_size_t, POINTER(c_void_p), c_char_p)
        doors.door_tokenizer_close.argtypes, doors.door_tokenizer_close.restype = (c_void_p,), None
        doors.door_tokenizer_encode.argtypes = (
            *(c_void_p, c_char_p, POINTER(c_uint64), c_size_t),
            *(POINTER(c_int64), c_size_t, POINTER(c_uint64), c_char_p),
        )
        doors.door_tokenizer_token_id.argtypes = (c_void_p, c_char_p, c_size_t)
        doors.door_tokenizer_token_id.restype = c_int64
        data = definition.encode() if isinstance(definition, str) else definition
        message = ctypes.create_string_buffer(MESSAGE)
        self._check(doors.door_tokenizer_open(data, len(data), byref(self._pointer), message), message)

    def __del__(self) -> None:
        self._doors.door_tokenizer_close(self._pointer)

    def encode(self, texts: Sequence[str | bytes]) -> list[list[int]]:
        """Ids of every text, of which there is at least one."""
        data = [text.encode() if isinstance(text, str) else text for text in texts]
        ends = np.cumsum([len(text) for text in data], dtype=np.uint64)
        id_ends = np.empty_like(ends)
        ids = np.empty(4 * sum(map(len, data)) + 64 * len(data), np.int64)
        message = ctypes.create_string_buffer(MESSAGE)
        status = self._doors.door_tokenizer_encode(
            *(self._pointer, b"".join(data), ends.ctypes.data_as(POINTER(c_uint64)), len(data)),
            *(ids.ctypes.data_as(POINTER(c_int64)), ids.size, id_ends.ctypes.data_as(POINTER(c_uint64)), message),
        )
        self._check(status, message)
        return [part.tolist() for part in np.split(ids[: id_ends[-1]], id_ends[:-1].astype(np.int64))]

    def token_id(self, token: str) -> int | None:
        data = token.encode()
        found = self._doors.door_tokenizer_token_id(self._pointer, data, len(data))
        return None if found < 0 else int(found)

    @staticmethod
    def _check(status: c_int | int, message: Any) -> None:
        if status != Status.OK:
            raise RefusedError(int(status), message.value)


class PythonTokenizer:
    """The tokenizers package, as runtime/prompt_tokenizer.py uses it."""

    def __init__(self, definition: str) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_str(definition)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts))]

    def token_id(self, token: str) -> int | None:
        found = self._tokenizer.token_to_id(token)
        return None if found is None else int(found)


def differences(doors: Any, definition: str, texts: Sequence[str]) -> list[tuple[str, list[int], list[int]]]:
    """(text in ASCII, ids in C, ids in Python) where they differ, at most ten of them."""
    in_c, in_python = CTokenizer(doors, definition).encode(texts), PythonTokenizer(definition).encode(texts)
    assert len(in_c) == len(in_python) == len(texts)
    rows = zip(texts, in_c, in_python, strict=True)
    return [(ascii(text), c, python) for text, c, python in rows if c != python][:10]
