"""Calibration prompts: the set that comes with the package (prompts.txt), or the user's own file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from hart_edge.errors import BuildError

FIRST_SEED = 1000  # prompt i is drawn with seed FIRST_SEED + i


def read_prompts(path: Path | None = None) -> list[str]:
    """The prompts of a UTF-8 file, one a line; empty lines and lines that begin with # are skipped."""
    try:
        source = path or files("hart_edge.calib.calibrate").joinpath("prompts.txt")
        text = source.read_text(encoding="utf-8").removeprefix("\ufeff")  # some editors begin a file with it
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{path}: not readable as UTF-8 text ({error}); name a file with one prompt a line") from None
    prompts = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not prompts:
        raise BuildError(f"{path}: expected at least one prompt, found none; write one a line")
    return prompts
