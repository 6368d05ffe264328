"""Which layer makes most of a graph's error: looked for where a graph is refused, and never else.

In: a graph as traced and the same in its final scheme, and the inputs of one call. Out: the layer whose output is
farther from the traced graph's than its inputs are, by most. Tensors keep their names in every scheme, so
both graphs are run with those of each layer as further outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hart_edge.calib.graph_files import read_graph
from hart_edge.calib.rewrite.fp16 import SUFFIX
from hart_edge.calib.rewrite.kv_cache import from_cache
from hart_edge.engines.base import EngineLibrary, Session

AT_ONCE = 16  # layers a run, which bounds the memory that their tensors take
FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16})
EXPOSED = ".layers.onnx"


@dataclass(frozen=True)
class LayerError:
    """A layer by the name of its weight, and how far its inputs and its output are from the traced graph's.

    Errors are root mean squares, relative to those of the traced tensor.
    """

    layer: str
    before: float
    after: float


@dataclass(frozen=True)
class _Layer:
    """A node with a weight. inputs: all else that it reads."""

    name: str
    inputs: tuple[str, ...]
    output: str


def worst_layer(
    traced: Path,
    final: Path,
    exact: Mapping[str, NDArray[Any]],
    feeds: Mapping[str, NDArray[Any]],
    library: EngineLibrary,
    at_once: int = AT_ONCE,
) -> LayerError | None:
    """The layer whose error grows most. exact, feeds: the inputs, of the dtypes that either graph takes.

    None where no layer of the traced graph is found in the other, or none adds an error.
    """
    model, other = read_graph(traced), read_graph(final)
    made = _made(other)
    names = {name: twin for name in _made(model) if (twin := _twin(name, made)) is not None}
    layers = [layer for layer in _layers(model) if layer.output in names]
    wanted = dict.fromkeys(name for layer in layers for name in (*layer.inputs, layer.output) if name in names)
    worst: LayerError | None = None
    growth = 0.0
    with (
        _exposing(model, traced, wanted, library) as one,
        _exposing(other, final, (names[name] for name in wanted), library) as two,
    ):
        for first in range(0, len(layers), at_once):
            some = layers[first : first + at_once]
            needed = [name for name in wanted if any(name in (*layer.inputs, layer.output) for layer in some)]
            expected, found = one.run(exact, needed), two.run(feeds, [names[name] for name in needed])
            errors = {name: _distance(expected[name], found[names[name]]) for name in needed}
            for layer in some:
                before = max((errors.get(name, 0.0) for name in layer.inputs), default=0.0)
                error = LayerError(layer.name, before, errors[layer.output])
                if error.after - error.before > growth:
                    worst, growth = error, error.after - error.before
    return worst


def _layers(model: onnx.ModelProto) -> Iterator[_Layer]:
    """Every node that reads a floating-point initialiser of more than one element."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = {name for name, each in constants.items() if each.data_type in FLOATS and max(each.dims, default=1) > 1}
    for node in model.graph.node:
        own = [name for name in node.input if name in weights]
        if own:
            inputs = tuple(name for name in node.input if name and name not in constants)
            yield _Layer(own[0].removesuffix(".T"), inputs, node.output[0])


def _made(model: onnx.ModelProto) -> set[str]:
    return {name for node in model.graph.node for name in node.output}


def _twin(name: str, made: set[str]) -> str | None:
    """The name of a tensor in another scheme of the graph."""
    return next((each for each in (name, *(name + suffix for suffix in SUFFIX.values())) if each in made), None)


@contextmanager
def _exposing(model: onnx.ModelProto, path: Path, names: Iterable[str], library: EngineLibrary) -> Iterator[Session]:
    """A session with further outputs, of a file that lies beside the graph, on the same weights, until the end."""
    outputs = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    file = path.with_suffix(EXPOSED)
    try:
        onnx.save_model(model, file)
        yield library.open(file)
    finally:
        file.unlink(missing_ok=True)


def _distance(expected: NDArray[Any], found: NDArray[Any]) -> float:
    """Root mean square of the difference over that of the expected values; 0 for integers, infinite for NaN."""
    if expected.dtype.kind != "f":
        return 0.0
    exact = expected.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        difference = np.square(from_cache(found, expected) - exact).sum()
    error = float(np.sqrt(difference / max(np.square(exact).sum(), np.finfo(np.float64).tiny)))
    return error if np.isfinite(error) else float("inf")
