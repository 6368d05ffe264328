"""Nothing is allocated inside the loop: every malloc of a picture is counted, by the library that asked for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.runtime.native.conftest import ROOT, Build

PROGRAM = """
import ctypes, sys
from tests.runtime.native.library import Handle, ScaleCallback, load
library, counter, bundle = sys.argv[1:]
handle = Handle(load(library), bundle, threads=2, wait_for_all=1)
found = (ctypes.c_long * 2)(-1, -1)
count = ctypes.cast(ctypes.CDLL(counter).count_second_picture, ScaleCallback)
texts = (ctypes.c_char_p * 2)(b"a red heart", b"man astronaut")
params = handle.params(prompts=texts, count=2, previews=1, on_scale=count)
params.user_data = ctypes.cast(found, ctypes.c_void_p)
handle.draw(params)
print(*found)
"""


def test_a_picture_costs_one_allocation(built: Build, engine: Path, int8_bundle: Path) -> None:
    """The one is the image, which goes to the caller. Allocations of ONNX Runtime while a graph runs do not count."""
    environment = {**os.environ, "LD_PRELOAD": str(built.counter), "HART_EDGE_ONNXRUNTIME": str(engine)}
    command = [sys.executable, "-c", PROGRAM, str(built.library), str(built.counter), str(int8_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    ours, of_the_engine = map(int, done.stdout.split())
    assert ours == 1
    assert of_the_engine > 1000  # so the counter works
