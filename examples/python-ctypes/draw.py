"""Draw a prompt as a PNG through hart_edge.h and ctypes: progress on standard error, Ctrl-C cancels.

    python draw.py BUNDLE PROMPT SEED FILE.png

Shows how a language without a C compiler calls the library, and needs no other part of hart-edge; for Python itself
`import hart_edge` is better. The library is libhart_edge.so.1 as the system finds it, or the path in
HART_EDGE_LIBRARY.
"""

from __future__ import annotations

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, byref, c_char_p, c_double, c_int32, c_uint8, c_uint32, c_uint64, c_void_p, sizeof

from PIL import Image

OK = 0


class Progress(ctypes.Structure):  # hart_edge_progress up to the last member used here; the library makes it
    _fields_ = (
        *((name, c_uint32) for name in ("struct_size", "picture", "pictures", "scale", "scales", "tokens")),
        *((name, c_void_p) for name in ("token_ids", "preview")),
    )


ScaleCallback = ctypes.CFUNCTYPE(c_int32, c_void_p, POINTER(Progress))


class Params(ctypes.Structure):  # hart_edge_params, field by field
    _fields_ = (
        *((name, c_uint32) for name in ("struct_size", "count")),
        ("prompt", c_char_p),
        ("prompts", POINTER(c_char_p)),
        *((name, c_void_p) for name in ("contexts", "context_masks")),
        ("seed", c_uint64),
        ("seeds", POINTER(c_uint64)),
        *((name, c_double) for name in ("cfg_scale", "top_p")),
        *((name, c_int32) for name in ("top_k", "smooth")),
        ("on_scale", ScaleCallback),
        ("user_data", c_void_p),
        *((name, c_int32) for name in ("previews", "reserved", "speed")),
    )


class Picture(ctypes.Structure):  # hart_edge_image
    _fields_ = (("width", c_uint32), ("height", c_uint32), ("pixels", POINTER(c_uint8)), ("seed", c_uint64))


@ScaleCallback
def show(_: int, progress: ctypes._Pointer[Progress]) -> int:
    print(f"{progress.contents.scale + 1} of {progress.contents.scales} scales", file=sys.stderr)
    return 0  # anything else cancels


def draw(library: ctypes.CDLL, handle: c_void_p, prompt: str, seed: int) -> Image.Image | str:
    """A picture, or the message of the error, which must be asked for on the same thread that generates."""
    params, picture = Params(), POINTER(Picture)()
    library.hart_edge_default_params(byref(params), sizeof(params))
    params.prompt, params.seed, params.on_scale = prompt.encode(), seed, show
    if library.hart_edge_generate(handle, byref(params), byref(picture)) != OK:
        return library.hart_edge_last_error(handle).decode()
    size = (picture.contents.width, picture.contents.height)
    image = Image.frombytes("RGB", size, ctypes.string_at(picture.contents.pixels, size[0] * size[1] * 3))
    library.hart_edge_image_free(picture)
    return image


def main() -> str | None:
    """None, or a message about what went wrong."""
    if len(sys.argv) != 5:
        return f"usage: {sys.argv[0]} BUNDLE PROMPT SEED FILE.png"
    bundle, prompt, seed, file = sys.argv[1:]
    library, handle = ctypes.CDLL(os.environ.get("HART_EDGE_LIBRARY", "libhart_edge.so.1")), c_void_p()
    library.hart_edge_last_error.restype = c_char_p
    drawn: Image.Image | str = "cancelled"
    if library.hart_edge_open(os.fsencode(bundle), None, byref(handle)) != OK:
        drawn = library.hart_edge_last_error(handle).decode()
    else:
        # Python handles Ctrl-C only on the main thread, between two lines of Python, so another thread generates.
        with ThreadPoolExecutor(1) as pool:
            drawing = pool.submit(draw, library, handle, prompt, int(seed))
            try:
                drawn = drawing.result()
            except KeyboardInterrupt:
                library.hart_edge_cancel(handle)
    library.hart_edge_close(handle)
    if isinstance(drawn, str):
        return f"error: {drawn}"
    drawn.save(file)
    return None


if __name__ == "__main__":
    sys.exit(main())
