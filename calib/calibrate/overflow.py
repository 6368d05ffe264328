"""Which tensors FP16 cannot be trusted with: those that come near its largest number in the real loop.

In: the graphs in float32, the names of the tensors that FP16 would hold, and every call that the loop makes; the graphs
compute it, with the extremes of those tensors as further outputs. Out: per graph the tensors that stay in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hart_edge.calib.calibrate.graph_outputs import with_extremes
from hart_edge.calib.calibrate.instrumented import InstrumentedGraphs
from hart_edge.calib.graph_files import read_graph
from hart_edge.calib.rewrite.fp16 import FP16_LARGEST
from hart_edge.engines.base import EngineLibrary

MARGIN = 4.0  # how many times larger the values of a prompt outside the calibration set may be
LARGEST_TRUSTED = FP16_LARGEST / MARGIN


class OverflowWatch:
    """A Runner of the loop (runtime/loop.py) that looks at every call; use it as a context manager."""

    def __init__(
        self, graphs: Mapping[str, Path], tensors: Mapping[str, Sequence[str]], library: EngineLibrary
    ) -> None:
        """graphs: the files in float32 by name; tensors: per graph those that FP16 would hold."""
        self.largest: dict[str, dict[str, float]] = {}
        instrumented: dict[str, onnx.ModelProto] = {}
        for graph, names in tensors.items():
            model = read_graph(graphs[graph])
            made = {output for node in model.graph.node for output in node.output}
            self.largest[graph] = {name: 0.0 for name in names if name in made}
            instrumented[graph] = with_extremes(model, self.largest[graph])
        self._graphs = InstrumentedGraphs(graphs, instrumented, library)

    def __enter__(self) -> OverflowWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self._graphs.close()

    def run(self, graph: str, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> None:
        """Compute `outputs` in place."""
        found = self._graphs.run(graph, inputs, outputs)
        for name, before in self.largest.get(graph, {}).items():
            extremes = [float(found[f"{name}:{part}"]) for part in ("low", "high")]
            if extremes == [np.inf, -np.inf]:  # the tensor is empty, as the KV cache is at scale 0
                continue
            magnitude = max(map(abs, extremes)) if np.isfinite(extremes).all() else np.inf
            self.largest[graph][name] = max(before, magnitude)

    def unload(self, graph: str) -> None:
        """Give the memory of a graph back that has seen all prompts."""
        self._graphs.unload(graph)

    def wide(self) -> dict[str, frozenset[str]]:
        """Per graph the tensors that came nearer to the largest number of FP16 than the margin allows."""
        return {
            graph: frozenset(name for name, value in largest.items() if value > LARGEST_TRUSTED)
            for graph, largest in self.largest.items()
        }
