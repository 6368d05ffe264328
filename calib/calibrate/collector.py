"""Activations of the real loop -> statistics of every tensor that INT8 may hold.

In: the graphs in float32, and every call that the loop makes of them; they compute its results. Out: TensorStatistics
per graph and tensor, from which ranges are chosen. `hart-edge calibrate` does this without a build.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hart_edge.calib.calibrate.graph_outputs import PARTS, PICK, with_range_outputs
from hart_edge.calib.calibrate.instrumented import InstrumentedGraphs
from hart_edge.calib.calibrate.statistics import ROWS, TensorStatistics
from hart_edge.calib.graph_files import read_graph
from hart_edge.calib.quantizable_nodes import NodeKind, describe_tensor, find_quantizable_nodes
from hart_edge.calib.scheme import Scheme
from hart_edge.engines.base import EngineLibrary
from hart_edge.errors import BuildError


def calibrated_tensors(model: onnx.ModelProto, scheme: Scheme) -> list[str]:
    """The activations whose ranges a scheme needs, each once, in the order of the graph."""
    names: dict[str, None] = {}
    for node in find_quantizable_nodes(model.graph):
        if node.kind is NodeKind.EMBEDDING or not scheme.quantizes(node.kind, node.weight):
            continue
        names[node.activation] = None
        if node.kind is NodeKind.CONV:
            names[node.proto.output[0]] = None
    return list(names)


class Collector:
    """A Runner of the loop (runtime/loop.py) that computes graphs with range outputs and remembers what these
    say, each call of a prompt apart from the others.

    Call end_prompt() after each prompt; use it as a context manager.
    """

    def __init__(self, graphs: Mapping[str, Path], schemes: Mapping[str, Scheme], library: EngineLibrary) -> None:
        """graphs: the files in float32 by name; schemes: of every graph, those that ranges are needed for."""
        self.prompts = 0
        self.statistics: dict[str, dict[str, TensorStatistics]] = {}
        self._names: dict[str, dict[str, str]] = {}  # of each graph's tensors, for messages
        self._calls: Counter[str] = Counter()  # of each graph, within this prompt
        instrumented: dict[str, onnx.ModelProto] = {}
        for graph, path in graphs.items():
            model = read_graph(path)
            names = calibrated_tensors(model, schemes[graph])
            if not names:
                continue
            instrumented[graph] = with_range_outputs(model, names)
            self.statistics[graph] = {name: TensorStatistics() for name in names}
            nodes = find_quantizable_nodes(model.graph)
            self._names[graph] = {name: describe_tensor(nodes, name) for name in names}
        self._graphs = InstrumentedGraphs(graphs, instrumented, library)

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *_: object) -> None:
        self._graphs.close()

    def run(self, graph: str, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> None:
        """Compute `outputs` in place. Raises BuildError where a tensor is not finite."""
        if graph not in self.statistics:
            self._graphs.run(graph, inputs, outputs)
            return
        index = self._calls[graph]
        self._calls[graph] += 1
        chance = np.random.Generator(np.random.Philox(key=[self.prompts, index]))
        # One row of each of ROWS equal parts, so that both branches of the guidance get the same number of rows. The
        # factor of 0.99 keeps the last one below 1 after rounding to float32.
        pick = ((np.arange(ROWS) + 0.99 * chance.random(ROWS)) / ROWS).astype(np.float32)
        found = self._graphs.run(graph, {**inputs, PICK: pick}, outputs)
        for name, statistics in self.statistics[graph].items():
            low, high, mean, rows = (found[f"{name}:{part}"] for part in PARTS)
            if not np.isfinite([low.min(), high.max()]).all():
                raise BuildError(
                    f"calibration prompt {self.prompts + 1}: graph {graph}, tensor {self._names[graph][name]} reached "
                    f"{low.min()} to {high.max()}; the fp32 model itself overflows there: check it with "
                    "`hart-edge golden`"
                )
            statistics.call(index).add(low, high, mean, rows, chance.random(ROWS))

    def begin_again(self, done: str) -> None:
        """From the first prompt, with other graphs: the graph `done` has seen all of them, and leaves memory."""
        self.prompts = 0
        self._graphs.unload(done)

    def end_prompt(self) -> None:
        self.prompts += 1
        self._calls.clear()
