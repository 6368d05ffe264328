"""The state of a run on disk, and the weights that it publishes.

State: OUT/state/step-00001000.pt, everything an identical continuation needs, read back as tensors and plain values
only. Files appear under their name when they are complete; a write that fails leaves what was there before.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from hart_edge.training.errors import TrainingError
from hart_edge.training.recipe import differences, from_json, to_json

log = logging.getLogger(__name__)

FORMAT = 1
STATE_NAME = re.compile(r"step-(\d{8})\.pt")

State = dict[str, Any]


def write_atomically(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write beside the file, flush to the disk and rename. Raises TrainingError; the file is then unchanged."""
    part = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or isinstance(error, RuntimeError)
        remedy = "make room on the disk" if full else "make the folder writable"
        reason = str(error).splitlines()[0]
        raise TrainingError(
            f"{file}: could not be written ({reason}); what was there before is unchanged: {remedy} and use --resume"
        ) from error


def write_bytes(file: Path, contents: bytes) -> None:
    """write_atomically() of contents that are known already."""
    write_atomically(file, lambda stream: stream.write(contents))


def save_state(folder: Path, step: int, state: State, keep: int) -> Path:
    """Write the state after `step` steps; of the older ones the newest keep - 1 stay."""
    file = folder / "state" / f"step-{step:08d}.pt"
    write_atomically(file, lambda stream: torch.save({"format": FORMAT, "step": step, **state}, stream))
    for old in states(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return file


def states(folder: Path) -> list[Path]:
    """The states of a run, oldest first."""
    return sorted(path for path in (folder / "state").glob("step-*.pt") if STATE_NAME.fullmatch(path.name))


def load_state(file: Path) -> State:
    """Read a state as tensors and plain values. Raises TrainingError."""
    try:
        state: State = torch.load(file, map_location="cpu", weights_only=True)
        if state["format"] != FORMAT:
            raise TrainingError(f"{file}: expected format {FORMAT}, found {state['format']}; resume with its version")
    except TrainingError:
        raise
    except Exception as error:  # torch.load raises whatever its reader stumbles over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(
            f"{file}: expected the state of a run, found an unreadable file ({reason}); "
            "delete it, and --resume takes the one before"
        ) from error
    return state


def check_state(file: Path, state: State, recipe: Any, fingerprint: str) -> None:
    """Refuse to go on with another recipe or other data: the result would be neither run's. Raises TrainingError.

    A field that the state does not know yet counts as its default.
    """
    then = to_json(from_json(type(recipe), state["recipe"], f"{file}: recipe"))
    if found := differences(then, to_json(recipe)):
        raise TrainingError(
            f"{file}: expected the recipe of the run, found other values (then, now):\n  "
            + "\n  ".join(found)
            + "\nuse the recipe of the run, or begin another with --out and --init"
        )
    if state["fingerprint"] != fingerprint:
        raise TrainingError(
            f"{file}: expected the examples of the run, found others; restore the data, or begin another run with "
            "--out and --init"
        )


def publish(
    folder: Path, config: dict[str, Any], tensors: dict[str, Tensor], metadata: dict[str, str], name: str = "model"
) -> None:
    """Write FOLDER/config.json and FOLDER/NAME.safetensors, the published layout of one part of a checkpoint."""
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    contents = safetensors.torch.save({name: t.detach().contiguous() for name, t in tensors.items()}, metadata)
    write_bytes(folder / "config.json", text.encode())
    write_bytes(folder / f"{name}.safetensors", contents)
