"""Activations of the real loop -> ranges: smallest and largest value of every tensor that INT8 would hold.

In: the fp32 graphs, and every call that the loop makes of them. Out: per graph and tensor a (low, high) pair. The
graph itself is run with a ReduceMin and a ReduceMax behind each tensor, so memory does not grow with the prompts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from calib.forms import Form
from calib.graph_files import read_graph
from calib.sites import SiteKind, find_sites
from engines.base import EngineLibrary, Session
from runtime.errors import BuildError

Ranges = dict[str, tuple[float, float]]


def observed_tensors(model: onnx.ModelProto, form: Form) -> list[str]:
    """The activations whose ranges a form needs, without repetition."""
    names: dict[str, None] = {}
    for site in find_sites(model.graph):
        if site.kind is SiteKind.EMBEDDING or not form.quantizes(site.kind):
            continue
        names[site.activation] = None
        if site.kind is SiteKind.CONV:
            names[site.node.output[0]] = None
    return list(names)


def with_observers(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The graph with outputs `NAME:low` and `NAME:high` behind each named tensor, and no others."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    del observed.graph.output[:]
    for name in names:
        for op, suffix in (("ReduceMin", "low"), ("ReduceMax", "high")):
            output = f"{name}:{suffix}"
            observed.graph.node.append(helper.make_node(op, [name], [output], keepdims=0))
            observed.graph.output.append(helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, []))
    return observed


class RangeCollector:
    """Averages the extremes of every call over the prompts; the widest call of a prompt then makes the range.

    Every scale has the same say, although the last ones hold most tokens, and one unusual prompt does not stretch a
    range for all others. Call it with (graph, inputs), and end_prompt() after each prompt; use it as a context manager.
    """

    def __init__(self, graphs: Mapping[str, Path], forms: Mapping[str, Form], library: EngineLibrary) -> None:
        """graphs: the fp32 files by name. NAME.observed.onnx lies beside each until the end, on the same weights."""
        self.prompts = 0
        self._files: list[Path] = []
        self._sessions: dict[str, Session] = {}
        self._calls: Counter[str] = Counter()  # of each graph, within this prompt
        self._sums: dict[tuple[str, int], dict[str, float]] = {}
        for graph, path in graphs.items():
            model = read_graph(path)
            names = observed_tensors(model, forms[graph])
            if not names:
                continue
            self._files.append(path.with_suffix(".observed.onnx"))
            onnx.save_model(with_observers(model, names), self._files[-1])
            self._sessions[graph] = library.open(self._files[-1])

    def __enter__(self) -> RangeCollector:
        return self

    def __exit__(self, *_: object) -> None:
        self._sessions.clear()
        for file in self._files:
            file.unlink(missing_ok=True)

    def __call__(self, graph: str, inputs: Mapping[str, NDArray[Any]]) -> None:
        if graph not in self._sessions:
            return
        sums = self._sums.setdefault((graph, self._calls[graph]), {})
        self._calls[graph] += 1
        for name, value in self._sessions[graph].run(inputs).items():
            if not np.isfinite(value):
                raise BuildError(
                    f"calibration prompt {self.prompts + 1}: graph {graph}, tensor {name.rpartition(':')[0]} reached "
                    f"{value}; the fp32 model itself overflows there: check it with `hart-edge golden`"
                )
            sums[name] = sums.get(name, 0.0) + float(value)

    def end_prompt(self) -> None:
        self.prompts += 1
        self._calls.clear()

    def ranges(self) -> dict[str, Ranges]:
        """Per graph and tensor (low, high). Raises BuildError when no prompt was run."""
        if not self.prompts:
            raise BuildError("calibration: expected at least one prompt, found none; name a file with --prompts")
        found: dict[str, Ranges] = {graph: {} for graph in self._sessions}
        for (graph, _), sums in self._sums.items():
            for name, total in sums.items():
                tensor, _, end = name.rpartition(":")
                value = total / self.prompts
                low, high = found[graph].get(tensor, (value, value))
                found[graph][tensor] = (min(low, value), high) if end == "low" else (low, max(high, value))
        return found
