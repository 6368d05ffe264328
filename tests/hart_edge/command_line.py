"""The command line in this process and in another, and the pictures it leaves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[2]
PROMPT = "a grinning face"

Run = Callable[..., tuple[int, str, str]]


def process(*arguments: object, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hart_edge", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, **more)


def pixels(file: Path) -> bytes:
    with Image.open(file) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        return image.tobytes()
