"""The traced graphs, some of them with further outputs: they compute the loop while it is calibrated.

In: files of graphs, and copies of some with further outputs. Out: runs of a graph by its name. The copies are written
beside the traced graphs, whose files of weights they share, and removed in the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from hart_edge.calib.graph_files import read_graph
from hart_edge.engines.base import Arrays, EngineLibrary, Session
from hart_edge.runtime.allocator import return_freed_memory


class InstrumentedGraphs:
    """Opens each graph when it is first run. Call close() in the end."""

    def __init__(
        self, graphs: Mapping[str, Path], instrumented: Mapping[str, onnx.ModelProto], library: EngineLibrary
    ) -> None:
        """graphs: the files in float32 by name; instrumented: some of these graphs with further outputs."""
        self._paths, self._library = dict(graphs), library
        self._copies: list[Path] = []
        self._sessions: dict[str, Session] = {}
        self._further: dict[str, list[str]] = {}  # outputs, by graph
        for graph, model in instrumented.items():
            self._paths[graph] = graphs[graph].with_suffix(".instrumented.onnx")
            self._copies.append(self._paths[graph])
            onnx.save_model(model, self._paths[graph])
            own = {value.name for value in read_graph(graphs[graph]).graph.output}
            self._further[graph] = [value.name for value in model.graph.output if value.name not in own]

    def run(self, graph: str, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Compute `outputs` in place, and return them and the further outputs. What else a graph puts out is left:
        it may be gigabytes of keys and values."""
        if graph not in self._sessions:
            self._sessions[graph] = self._library.open(self._paths[graph], in_order=True)
        found = self._sessions[graph].run(inputs, [*outputs, *self._further.get(graph, ())])
        for name, array in outputs.items():
            array[...] = found[name]
        return found

    def unload(self, graph: str) -> None:
        """Give a graph's memory back; its next run opens it again."""
        self._sessions.pop(graph, None)
        return_freed_memory()

    def close(self) -> None:
        self._sessions.clear()
        for path in self._copies:
            path.unlink(missing_ok=True)
