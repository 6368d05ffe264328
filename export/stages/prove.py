"""The proof that traced graphs hold the checkpoint's weights: every tensor against the files, which are read again.

In: the traced graphs and the source. Out: nothing, or BuildError naming a tensor. A gate that compares a graph with the
reference cannot see that both have the same wrong weights; this stage can: file = module = graph, bit by bit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from torch import Tensor

from hart_edge.calib.graph_files import read_graph, read_tensor
from hart_edge.calib.quantizable_nodes import FLOAT
from hart_edge.errors import BuildError
from hart_edge.export.graph_module import GraphModule
from hart_edge.export.onnx_export import TRANSPOSED
from hart_edge.export.stages.context import BuildContext
from hart_edge.export.stages.trace import TraceResult

# Elements from which on a number in a graph has to be accounted for; tracing makes small ones of its own.
COUNTED_FROM = 256
# What no graph holds under its own numbers, because the build computes constants from it: the embeddings of levels and
# diffusion steps, and the phi convolutions, which are one.
COMPUTED = ("transformer.level_embed.", "residual.time_embed.", "quantizer.phi.")


@dataclass(frozen=True)
class Held:
    """Where a graph holds a tensor: the initialiser, and whether it lies there transposed."""

    graph: str
    tensor: onnx.TensorProto
    transposed: bool


class HeldWeights:
    """The initialisers of all traced graphs, and which of them are named after tensors of the modules.

    What tracing has computed besides (positions, masks, products of constants) is no weight, and no file has it.
    """

    def __init__(self, graphs: Mapping[str, GraphModule], paths: Mapping[str, Path]) -> None:
        self.folder = next(iter(paths.values())).parent
        self.by_address: dict[int, list[Held]] = defaultdict(list)
        self.all: dict[tuple[str, str], onnx.TensorProto] = {}  # by graph and name
        for graph, module in graphs.items():
            large = {each.name: each for each in read_graph(paths[graph]).graph.initializer if is_large(each)}
            self.all |= {(graph, name): tensor for name, tensor in large.items()}
            for name, values in module.named_parameters(remove_duplicate=False):
                for held, transposed in ((name, False), (f"{name}{TRANSPOSED}", True)):
                    if held in large:
                        self.by_address[values.data_ptr()].append(Held(graph, large[held], transposed))
        places = (place for each in self.by_address.values() for place in each)
        self.left = {(place.graph, place.tensor.name) for place in places}  # which no file has accounted for

    def values(self, tensor: onnx.TensorProto) -> NDArray[Any]:
        return read_tensor(tensor, self.folder)


def is_large(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type == FLOAT and int(np.prod(tensor.dims)) >= COUNTED_FROM


def is_as_large(tensor: onnx.TensorProto, values: Tensor) -> bool:
    return tuple(tensor.dims) == tuple(values.shape)


def prove(context: BuildContext, traced: TraceResult) -> None:
    """Hold every tensor of the checkpoint against the module and the graphs. Raises BuildError."""
    source = traced.source
    with context.step("holding the graphs' weights against the checkpoint's"):
        held = HeldWeights(source.graphs, traced.paths)
        absent = dict(_compared(source.weights(), held))
        _find_joined(held, absent)
        _find_twins(held, absent)
        if held.left:
            graph, name = min(held.left)
            raise BuildError(
                f"graph {graph}: expected the checkpoint's weights alone, found {name}, which no file has "
                f"({len(held.left)} are like it); nothing was written. Please report it"
            )


def _compared(weights: Iterator[tuple[str, Tensor, Tensor]], held: HeldWeights) -> Iterator[tuple[str, Tensor]]:
    """Compare every tensor with its module's and with the graphs that are named after it; yields those without one."""
    for name, in_file, in_module in weights:
        expected = in_file.float()
        _require_equal(in_module.detach().numpy(), expected, "reference", name)
        places = held.by_address.get(in_module.data_ptr(), [])
        for each in places:
            values = expected.T if each.transposed else expected
            _require_equal(held.values(each.tensor), values, each.graph, each.tensor.name)
            held.left.discard((each.graph, each.tensor.name))
        if not places and not name.startswith(COMPUTED):
            yield name, in_module


def _find_joined(held: HeldWeights, absent: dict[str, Tensor]) -> None:
    """Vectors that tracing has made one of, such as the biases of queries and values with zeros for the keys between
    them: what an initialiser of nothing but absent tensors and zeros holds is absent no more."""
    vectors = {name: values.numpy() for name, values in absent.items() if values.ndim == 1}
    lengths = {len(each) for each in vectors.values()}
    for tensor in held.all.values():
        if len(tensor.dims) != 1 or not vectors or tensor.dims[0] <= min(lengths):
            continue
        joined, at, found = held.values(tensor), 0, set()
        while at < len(joined):
            here = [name for name, each in vectors.items() if np.array_equal(joined[at : at + len(each)], each)]
            if not here and joined[at] != 0:
                break
            found.update(here)
            at += max((len(vectors[name]) for name in here), default=1)
        else:
            for name in found:
                absent.pop(name, None)


def _find_twins(held: HeldWeights, absent: dict[str, Tensor]) -> None:
    """A tensor that has no initialiser of its own must equal one that has: equal ones become one where they are traced.

    The other way round, an initialiser that no file has accounted for may be such a twin.
    """
    for name, values in absent.items():
        if values.numel() < COUNTED_FROM:
            continue
        for transposed in (values, values.T) if values.ndim == 2 else (values,):
            places = [key for key, each in held.all.items() if is_as_large(each, transposed)]
            same = [key for key in places if np.array_equal(held.values(held.all[key]), transposed.numpy())]
            held.left.difference_update(same)
            if same:
                break
        else:
            raise BuildError(
                f"{name}: expected this tensor of the checkpoint in a graph, found it in none; nothing was written. "
                "Please report it"
            )


def _require_equal(found: NDArray[Any], expected: Tensor, graph: str, name: str) -> None:
    if not np.array_equal(found, expected.numpy()):
        raise BuildError(
            f"graph {graph}, tensor {name}: expected the checkpoint's numbers, found others; nothing was written. "
            "Build it again; if that changes nothing, please report it"
        )
