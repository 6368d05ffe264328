"""Which tensors FP16 cannot be trusted with: those that come near its largest number in the real loop.

In: the graphs in float32, their twins with FP16 tensors, and every call that the loop makes. Out: per graph the names
of the tensors that stay in float32. The float32 graphs are run with the extremes of those tensors as outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.graph_files import read_graph
from calib.half import FP16_LARGEST
from calib.observation import with_extremes
from engines.base import EngineLibrary, Session

MARGIN = 4.0  # a prompt that nobody calibrated on may reach this much farther
LARGEST_TRUSTED = FP16_LARGEST / MARGIN


class OverflowWatch:
    """Call it with (graph, inputs) for every call of the loop; use it as a context manager."""

    def __init__(
        self, graphs: Mapping[str, Path], tensors: Mapping[str, Sequence[str]], library: EngineLibrary
    ) -> None:
        """graphs: the fp32 files by name; tensors: per graph those that FP16 would hold."""
        self.largest: dict[str, dict[str, float]] = {graph: {} for graph in tensors}
        self._files: list[Path] = []
        self._sessions: dict[str, Session] = {}
        for graph, names in tensors.items():
            model = read_graph(graphs[graph])
            made = {output for node in model.graph.node for output in node.output}
            self._files.append(graphs[graph].with_suffix(".watched.onnx"))
            onnx.save_model(with_extremes(model, [name for name in names if name in made]), self._files[-1])
            self._sessions[graph] = library.open(self._files[-1])

    def __enter__(self) -> OverflowWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._sessions.clear()
        for file in self._files:
            file.unlink(missing_ok=True)

    def __call__(self, graph: str, inputs: Mapping[str, NDArray[Any]]) -> None:
        if graph not in self._sessions:
            return
        largest = self.largest[graph]
        for name, value in self._sessions[graph].run(inputs).items():
            tensor, _, extreme = name.rpartition(":")
            if value == (np.inf if extreme == "low" else -np.inf):  # of an empty tensor, as at scale 0
                continue
            magnitude = abs(float(value)) if np.isfinite(value) else float("inf")
            largest[tensor] = max(largest.get(tensor, 0.0), magnitude)

    def wide(self) -> dict[str, frozenset[str]]:
        """Per graph the tensors that came nearer to the end of FP16 than the margin allows."""
        return {
            graph: frozenset(name for name, value in largest.items() if value > LARGEST_TRUSTED)
            for graph, largest in self.largest.items()
        }
