"""Golden records: what the published implementation computed, and how a result is held against it.

In: golden.npz (tests/golden/README.md says what is in it). Out: arrays by name, and RecordResults. Needs no torch, so
that a device can check a bundle.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.errors import CheckpointError

LOGITS_TOLERANCE = 2e-4  # what the published implementation meets against itself on another thread count
LATENT_TOLERANCE = 1e-4
EXACT = 0.0
RECORDS_FILE = "golden.npz"
# What is said of records that a model cannot read, and the remedy.
MISFIT = ("its golden records cannot be read by this model", "make them with hart-edge golden --record DIR")

Records = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class RecordResult:
    """One compared record. `error` is the largest absolute difference; for integers the number that differ."""

    name: str
    error: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance  # False for NaN

    def line(self) -> str:
        return f"{self.name:24} {self.error:10.3e}  tolerance {self.tolerance:.0e}  {'ok' if self.ok else 'FAILED'}"


def read_records(folder: Path) -> Records:
    """The arrays of DIR/golden.npz, read as data only."""
    path = folder / RECORDS_FILE
    try:
        with np.load(path, allow_pickle=False) as archive:
            return dict(archive)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: missing; expected the golden records beside tokenizer/ and llm/; make them of this "
            "checkpoint with hart-edge golden --record DIR"
        ) from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointError(f"{path}: not a readable record file ({error}); copy it again") from None


def compare(name: str, found: NDArray[Any], records: Records, tolerance: float) -> RecordResult:
    """Compare an array with the record of its name."""
    expected = record_of(records, name)
    if found.shape != expected.shape:
        raise CheckpointError(f"{name}: the record has shape {expected.shape}, the model computes {found.shape}")
    if np.issubdtype(expected.dtype, np.integer):
        return RecordResult(name, float(np.count_nonzero(found != expected)), EXACT)
    return RecordResult(name, float(np.abs(found.astype(np.float64) - expected).max(initial=0)), tolerance)


def record_of(records: Records, name: str) -> NDArray[Any]:
    """A record, or CheckpointError naming it."""
    if name not in records:
        raise CheckpointError(f"golden.npz: record {name!r} is missing; found {', '.join(sorted(records)[:8])}, ...")
    return records[name]


def check_inputs(records: Records, subject: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError unless the records that a model is to read have its shapes.

    subject: the model, for the message. shapes: without the first axis, which counts pictures or rows.
    """
    for name, expected in shapes.items():
        found = record_of(records, name)
        if found.ndim == 0 or found.shape[1:] != expected:
            wanted = ", ".join(map(str, ("N", *expected)))
            raise CheckpointError(
                f"{RECORDS_FILE}: {name}: expected the shape ({wanted}) of {subject}, found {found.shape}: they are "
                "records of another checkpoint; name the one that belongs to it"
            )


def guidance_of(records: Records, scales: int) -> float:
    """The cfg_scale that a recording used: its residual's strength over the ramp of the scale before the last."""
    return float(record_of(records, "residual.cfg")) * (scales - 1) / max(scales - 2, 1)
