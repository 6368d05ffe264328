"""The file of ranges: what calibration chose, and for which weights. The graphs of any target can be made from it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hart_edge.errors import BuildError

RANGES_VERSION = 5  # it also stands for the names of activations, which come from tracing
OCTAVE = 8  # smoothing factors are powers of 2 ** (1 / OCTAVE), so that the file holds whole numbers


class ActivationRange(NamedTuple):
    """The range that INT8 represents of an activation, whose channels have been divided by their factors.

    exponents: factor = 2 ** (exponent / OCTAVE) per channel; if empty, every factor is 1. means: of each channel before
    the division, from which the bias is corrected for the rounding of the weights; if empty, it is not. lows, highs: of
    each channel before the division, where its result gets a range per channel.
    """

    low: float
    high: float
    exponents: tuple[int, ...] = ()
    means: tuple[float, ...] = ()
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()

    def factors(self) -> NDArray[np.float32] | None:
        """(C,), or None where all are 1."""
        return factors_of(np.array(self.exponents)) if self.exponents else None


PER_CHANNEL = ("means", "lows", "highs")  # fields of ActivationRange that hold a number for each channel
Ranges = Mapping[str, ActivationRange]


def with_zero(low: float, high: float) -> tuple[float, float]:
    """A range that reaches zero, as every quantised range does: padding and masks are exact zeros."""
    return min(low, 0.0), max(high, 0.0)


def smoothing_exponents(
    activation: NDArray[np.float32], weight: NDArray[np.float32], alpha: float
) -> NDArray[np.int64]:
    """Exponents of the factors activation ** alpha / weight ** (1 - alpha) per channel, scaled to a median of 1.

    activation, weight: the largest magnitude of each input channel, (C,).
    """
    activation = np.maximum(activation, 1e-4 * activation.max() + 1e-30)
    weight = np.maximum(weight, 1e-4 * weight.max() + 1e-30)
    wanted = alpha * np.log2(activation) - (1 - alpha) * np.log2(weight)
    exponents: NDArray[np.int64] = np.rint(OCTAVE * (wanted - np.median(wanted))).astype(np.int64)
    return exponents


def factors_of(exponents: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.exp2(exponents / OCTAVE).astype(np.float32)


@dataclass(frozen=True)
class CalibratedRanges:
    """Ranges per graph and tensor, the prompts behind them, and the SHA-256 of the weights they belong to."""

    weights_sha256: str
    prompts: int
    prompts_sha256: str  # of the inputs that the loop was run on
    range_rules: Mapping[str, str]  # per graph the RangeRule that made its ranges
    graphs: Mapping[str, Ranges]

    def to_json(self) -> bytes:
        content = {
            "format_version": RANGES_VERSION,
            "weights_sha256": self.weights_sha256,
            "prompts": self.prompts,
            "prompts_sha256": self.prompts_sha256,
            "range_rules": dict(self.range_rules),
            "graphs": {
                graph: {name: _written(entry) for name, entry in ranges.items()}
                for graph, ranges in self.graphs.items()
            },
        }
        return json.dumps(content, indent=1).encode()

    def sha256(self) -> str:
        return hashlib.sha256(self.to_json()).hexdigest()


def as_written(values: NDArray[np.float32]) -> tuple[float, ...]:
    """Numbers per channel, with the digits that the file has of them."""
    return tuple(float(f"{value:.5g}") for value in values)


def _written(entry: ActivationRange) -> dict[str, Any]:
    """An entry of the file. Numbers per channel are strings, since an indented list would take a line for each."""
    found: dict[str, Any] = {"low": entry.low, "high": entry.high}
    if entry.exponents:
        found["exponents"] = " ".join(map(str, entry.exponents))
    for key in PER_CHANNEL:
        if values := getattr(entry, key):
            found[key] = " ".join(f"{value:.5g}" for value in values)
    return found


def _read_entry(value: Mapping[str, Any]) -> ActivationRange:
    exponents = tuple(int(each) for each in value.get("exponents", "").split())
    channels = [tuple(float(each) for each in value.get(key, "").split()) for key in PER_CHANNEL]
    unknown = set(value) - {*ActivationRange._fields}
    if unknown:
        raise ValueError(f"unknown {sorted(unknown)}")
    entry = ActivationRange(float(value["low"]), float(value["high"]), exponents, *channels)
    if not all(abs(each) <= 64 * OCTAVE for each in exponents) or not all(map(math.isfinite, sum(channels, ()))):
        raise ValueError("factors, means or ranges of channels out of range")
    pairs = zip(entry.lows, entry.highs, strict=True)  # ValueError where one is shorter
    if any(low > high for low, high in pairs):
        raise ValueError("ranges of channels with the low end above the high one")
    return entry


def is_current(path: Path) -> bool:
    """Whether a file of ranges has the format that this version reads; what is in it read_ranges() checks."""
    try:
        return bool(json.loads(path.read_bytes())["format_version"] == RANGES_VERSION)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def read_ranges(path: Path, weights_sha256: str) -> CalibratedRanges:
    """Read a file of ranges. Raises BuildError unless it belongs to these weights."""
    try:
        content = json.loads(path.read_bytes())
        version = content["format_version"]
        if type(version) is not int or version != RANGES_VERSION:
            raise BuildError(f"{path}: expected format version {RANGES_VERSION}, found {version!r}; calibrate again")
        found = CalibratedRanges(
            content["weights_sha256"],
            int(content["prompts"]),
            str(content["prompts_sha256"]),
            {str(graph): str(rule) for graph, rule in content["range_rules"].items()},
            {
                str(graph): {str(name): _read_entry(value) for name, value in ranges.items()}
                for graph, ranges in content["graphs"].items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{path}: not a readable file of ranges ({error}); calibrate again") from None
    if found.prompts < 1 or not all(
        math.isfinite(entry.low) and math.isfinite(entry.high) and entry.low <= entry.high
        for ranges in found.graphs.values()
        for entry in ranges.values()
    ):
        raise BuildError(f"{path}: expected finite ranges, low before high, of at least one prompt; calibrate again")
    if found.weights_sha256 != weights_sha256:
        owner = str(found.weights_sha256)
        raise BuildError(
            f"{path}: these ranges belong to weights {owner[:12]}..., this checkpoint's are {weights_sha256[:12]}...; "
            "calibrate this checkpoint"
        )
    return found


def hash_files(paths: Iterable[Path]) -> str:
    """One SHA-256 over the contents of all files, in the given order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(4 * 2**20):
                digest.update(block)
    return digest.hexdigest()
