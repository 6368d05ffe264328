"""hart_edge.h for ctypes: the structures of the header, and a handle whose calls raise on failure.

Other programs may use the library like this; docs/embedding.md points here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, c_char_p, c_double, c_float, c_int32, c_int64, c_uint8, c_uint32, c_uint64
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Status(IntEnum):
    OK = 0
    INVALID_ARGUMENT = 1
    INPUT_ERROR = 2
    BUNDLE_ERROR = 3
    ENGINE_ERROR = 4
    GENERATION_ERROR = 5
    CANCELLED = 6
    BUSY = 7
    OUT_OF_MEMORY = 8
    INTERNAL_ERROR = 9


class NativeError(Exception):
    """A call that did not return HART_EDGE_OK."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = Status(status), message


class Options(Structure):
    _fields_ = (
        ("struct_size", c_uint32),
        ("engine", c_int32),
        ("threads", c_int32),
        ("device", c_int32),
        ("memory_limit", c_uint64),
        ("onnxruntime_library", c_char_p),
        ("tensorrt_library", c_char_p),
        ("wait_for_all", c_int32),
    )


class Progress(Structure):
    _fields_ = (
        ("struct_size", c_uint32),
        ("picture", c_uint32),
        ("pictures", c_uint32),
        ("scale", c_uint32),
        ("scales", c_uint32),
        ("tokens", c_uint32),
        ("token_ids", POINTER(c_int64)),
        ("preview", POINTER(c_uint8)),
        ("width", c_uint32),
        ("height", c_uint32),
    )


ScaleCallback = ctypes.CFUNCTYPE(c_int32, ctypes.c_void_p, POINTER(Progress))


class Params(Structure):
    _fields_ = (
        ("struct_size", c_uint32),
        ("count", c_uint32),
        ("prompt", c_char_p),
        ("prompts", POINTER(c_char_p)),
        ("contexts", POINTER(c_float)),
        ("context_masks", POINTER(c_uint8)),
        ("seed", c_uint64),
        ("seeds", POINTER(c_uint64)),
        ("cfg_scale", c_double),
        ("top_p", c_double),
        ("top_k", c_int32),
        ("smooth", c_int32),
        ("on_scale", ScaleCallback),
        ("user_data", ctypes.c_void_p),
        ("previews", c_int32),
        ("reserved", c_int32),
        ("speed", c_int32),
    )


class Image(Structure):
    _fields_ = (
        ("width", c_uint32),
        ("height", c_uint32),
        ("pixels", POINTER(c_uint8)),
        ("seed", c_uint64),
        ("prompt_tokens", c_uint32),
    )


class Info(Structure):
    _fields_ = (
        ("struct_size", c_uint32),
        ("image_size", c_uint32),
        ("scales", c_uint32),
        ("takes_prompt", c_uint32),
        ("context_tokens", c_uint32),
        ("context_dim", c_uint32),
        ("cfg_scale", c_double),
        ("top_p", c_double),
        ("top_k", c_int32),
        ("smooth", c_int32),
        ("name", c_char_p),
        ("precision", c_char_p),
        ("target", c_char_p),
        ("engine", c_char_p),
        ("memory", c_uint64),
        ("speed", c_int32),
        ("speeds", c_uint32),
    )


def load(path: Path) -> Any:
    """The shared library with the types of its functions."""
    library = ctypes.CDLL(str(path))
    handle = ctypes.c_void_p
    signatures: dict[str, tuple[Any, ...]] = {
        "version": (c_char_p,),
        "abi_version": (c_uint32,),
        "status_text": (c_char_p, c_int32),
        "default_options": (c_int32, POINTER(Options), c_uint32),
        "default_params": (c_int32, POINTER(Params), c_uint32),
        "open": (c_int32, c_char_p, POINTER(Options), POINTER(handle)),
        "get_info": (c_int32, handle, POINTER(Info)),
        "generate": (c_int32, handle, POINTER(Params), POINTER(POINTER(Image))),
        "cancel": (None, handle),
        "image_free": (None, POINTER(Image)),
        "last_error": (c_char_p, handle),
        "close": (None, handle),
    }
    for name, (result, *arguments) in signatures.items():
        function = getattr(library, f"hart_edge_{name}")
        function.restype, function.argtypes = result, arguments
    return library


class Handle:
    """An opened bundle. Failures of its calls are raised."""

    def __init__(self, library: Any, folder: Path | str, **options: Any) -> None:
        self.library, self.pointer = library, ctypes.c_void_p()
        given = Options()
        library.hart_edge_default_options(given, ctypes.sizeof(given))
        for name, value in options.items():
            setattr(given, name, value)
        try:
            self._check(library.hart_edge_open(str(folder).encode(), given, self.pointer))
        except NativeError:
            self.close()
            raise

    def params(self, **changed: Any) -> Params:
        params = Params()
        self.library.hart_edge_default_params(params, ctypes.sizeof(params))
        for name, value in changed.items():
            setattr(params, name, value)
        return params

    def generate(self, prompt: str | None = None, **changed: Any) -> NDArray[np.uint8]:
        """One picture, (H, W, 3) uint8."""
        text = None if prompt is None else prompt.encode()
        return self.draw(self.params(prompt=text, **changed))[0]

    def draw(self, params: Params) -> list[NDArray[np.uint8]]:
        images = (POINTER(Image) * params.count)()
        self._check(self.library.hart_edge_generate(self.pointer, params, images))
        pictures = []
        for image in images:
            shape = (image.contents.height, image.contents.width, 3)
            pictures.append(np.ctypeslib.as_array(image.contents.pixels, shape).copy())
            self.library.hart_edge_image_free(image)
        return pictures

    def info(self) -> Info:
        info = Info(struct_size=ctypes.sizeof(Info))
        self._check(self.library.hart_edge_get_info(self.pointer, info))
        return info

    def cancel(self) -> None:
        self.library.hart_edge_cancel(self.pointer)

    def last_error(self) -> str:
        return str(self.library.hart_edge_last_error(self.pointer).decode())

    def close(self) -> None:
        self.library.hart_edge_close(self.pointer)
        self.pointer = ctypes.c_void_p()

    def _check(self, status: int) -> None:
        if status != Status.OK:
            raise NativeError(status, self.last_error())


def every_scale(function: Callable[[Any], int | None]) -> Any:
    """A callback that passes each Progress to `function`, which cancels by returning anything but None and 0."""
    return ScaleCallback(lambda _, progress: function(progress.contents) or 0)


def token_ids(progress: Any) -> list[int]:
    return list(progress.token_ids[: progress.tokens])


def texts(prompts: Sequence[str]) -> Any:
    """The array for params.prompts; keep it alive during the call."""
    return (c_char_p * len(prompts))(*(prompt.encode() for prompt in prompts))
