"""The traced graphs with observers in some of them: what the loop of calibration is computed by.

In: files of graphs, and twins of some with further outputs. Out: a run of a graph by name. The twins lie beside their
graphs, on the same weights, until the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from hart_edge.engines.base import EngineLibrary, Session


class InstrumentedGraphs:
    """Opens a graph when it is first run. Call close() in the end."""

    def __init__(
        self, graphs: Mapping[str, Path], instrumented: Mapping[str, onnx.ModelProto], library: EngineLibrary
    ) -> None:
        """graphs: the fp32 files by name; instrumented: some of them with further outputs."""
        self._paths, self._library = dict(graphs), library
        self._twins: list[Path] = []
        self._sessions: dict[str, Session] = {}
        for graph, model in instrumented.items():
            self._paths[graph] = graphs[graph].with_suffix(".instrumented.onnx")
            self._twins.append(self._paths[graph])
            onnx.save_model(model, self._paths[graph])

    def run(self, graph: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """All outputs of a graph, those of its observers among them."""
        if graph not in self._sessions:
            self._sessions[graph] = self._library.open(self._paths[graph])
        return self._sessions[graph].run(inputs)

    def close(self) -> None:
        self._sessions.clear()
        for path in self._twins:
            path.unlink(missing_ok=True)
