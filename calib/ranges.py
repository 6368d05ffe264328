"""The file of ranges: what calibration found, and for which weights, so that any target's form can be made from it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import BuildError

FORMAT_VERSION = 1


@dataclass(frozen=True)
class CalibratedRanges:
    """Ranges per graph and tensor, the number of prompts behind them, and the SHA-256 of the weights they belong to."""

    weights_sha256: str
    prompts: int
    graphs: Mapping[str, Mapping[str, tuple[float, float]]]

    def to_json(self) -> bytes:
        graphs = {graph: {name: list(pair) for name, pair in ranges.items()} for graph, ranges in self.graphs.items()}
        content = {
            "format_version": FORMAT_VERSION,
            "weights_sha256": self.weights_sha256,
            "prompts": self.prompts,
            "graphs": graphs,
        }
        return json.dumps(content, indent=1).encode()

    def sha256(self) -> str:
        return hashlib.sha256(self.to_json()).hexdigest()


def read_ranges(path: Path, weights_sha256: str) -> CalibratedRanges:
    """Read a file of ranges. Raises BuildError unless it belongs to these weights."""
    try:
        content = json.loads(path.read_bytes())
        version, owner, prompts = content["format_version"], content["weights_sha256"], int(content["prompts"])
        graphs = {
            str(graph): {str(name): (float(low), float(high)) for name, (low, high) in ranges.items()}
            for graph, ranges in content["graphs"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BuildError(f"{path}: not a readable file of ranges ({error}); calibrate again") from None
    if type(version) is not int or version != FORMAT_VERSION:
        raise BuildError(f"{path}: expected format version {FORMAT_VERSION}, found {version!r}; calibrate again")
    if prompts < 1 or not all(
        math.isfinite(low) and math.isfinite(high) and low <= high
        for ranges in graphs.values()
        for low, high in ranges.values()
    ):
        raise BuildError(f"{path}: expected finite ranges, low before high, of at least one prompt; calibrate again")
    if owner != weights_sha256:
        raise BuildError(
            f"{path}: these ranges belong to weights {owner[:12]}..., this checkpoint's are {weights_sha256[:12]}...; "
            "calibrate this checkpoint"
        )
    return CalibratedRanges(owner, prompts, graphs)


def hash_files(paths: Iterable[Path]) -> str:
    """One SHA-256 over the contents of files, in the given order."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(4 * 2**20):
                digest.update(block)
    return digest.hexdigest()
