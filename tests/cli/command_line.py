"""Runs the command line in other processes, and reads the pictures that it writes."""

from __future__ import annotations

import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[2]
PROMPT = "a grinning face"

Run = Callable[..., tuple[int, str, str]]


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def process(*arguments: object, cwd: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hart_edge", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, **more)


def processes(count: int, *arguments: object, cwd: Path) -> list[subprocess.Popen[str]]:
    """Start the command as `count` processes that work together, as torchrun and accelerate launch do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    together = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    started = []
    for rank in range(count):
        values = {**together, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": 1, "PYTHONPATH": ROOT}
        environment = os.environ | {name: str(value) for name, value in values.items()}
        command = [sys.executable, "-m", "hart_edge", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=cwd, env=environment, **pipes))
    return started


def usage_ends_with(err: str, command: str, message: str) -> bool:
    """Whether standard error has the usage of the command, and behind it one error that matches a pattern."""
    return (
        re.fullmatch(rf"usage: hart-edge {command} .*\nhart-edge {command}: error: {message}\n", err, re.DOTALL)
        is not None
    )


def pixels(file: Path) -> bytes:
    with Image.open(file) as image:
        assert image.format == "PNG" and image.mode == "RGB"
        return image.tobytes()
