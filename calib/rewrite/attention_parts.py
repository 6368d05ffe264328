"""Attention of some heads at a time, in graphs that this machine runs in place of the GPU they are written for.

In: a transformer whose attention is two products and a softmax. Out: the same tensors from parts of the heads, one part
after the other, so that the scores of a part have left memory before the next one's come: all heads of 0.7B at 1024
pixels have 3.8 GB of scores a branch, and a graph that is looked at holds them several times. What is written into a
bundle stays whole: engine builders know the whole pattern and have kernels that hold no scores.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from hart_edge.calib.graph_files import read_graph
from hart_edge.calib.rewrite.nodes import make_node, replace_nodes
from hart_edge.engines.base import Availability, EngineLibrary, Session

HEADS = 1  # the axis of heads in queries, keys and values: (B, H, n, d)
BETWEEN = frozenset({"Add", "Cast", "Softmax", "QuantizeLinear", "DequantizeLinear"})  # the two products
EXTREMES = {"ReduceMin": "Min", "ReduceMax": "Max"}  # of a tensor, and what joins those of its parts


class LibraryInParts:
    """An engine library that opens the transformer with its attention in parts of the heads."""

    def __init__(self, library: EngineLibrary, parts: int) -> None:
        self._library, self._parts = library, parts

    def availability(self) -> Availability:
        return self._library.availability()

    def open(self, graph: Path, *, in_order: bool = False) -> Session:
        """As EngineLibrary.open(); the transformer always in order, else its parts would overlap."""
        model = read_graph(graph)
        if model.graph.name != "transformer":
            return self._library.open(graph, in_order=in_order)
        attend_in_parts(model, self._parts)
        copy = graph.with_name(f"{graph.stem}.parts.onnx")  # beside its weights
        try:
            onnx.save_model(model, copy)
            return self._library.open(copy, in_order=True)
        finally:
            copy.unlink(missing_ok=True)


def attend_in_parts(model: onnx.ModelProto, parts: int) -> int:
    """Rewrite each attention of a graph in place, and return how many there were. Extremes that are asked of scores are
    those of all parts; an attention of whose scores anything else is asked stays whole.

    parts: at most as many as there are heads; the last one has fewer where they do not come out even.
    """
    found = _find(model.graph)
    last = {attention.nodes[-1].output[0]: attention for attention in found}
    inside = {name for attention in found for node in attention.all for name in node.output}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.output[0] in last:  # by then everything that it reads from elsewhere is there
            nodes += last[node.output[0]].in_parts(parts)
        elif node.output[0] not in inside:
            nodes.append(node)
    replace_nodes(model.graph, nodes)
    return len(found)


@dataclass(frozen=True)
class _Attention:
    """nodes: the path from queries x keys to scores x values; extremes: what looks at the tensors of that path."""

    nodes: tuple[onnx.NodeProto, ...]
    extremes: tuple[onnx.NodeProto, ...]

    @property
    def all(self) -> tuple[onnx.NodeProto, ...]:
        return (*self.nodes, *self.extremes)

    def in_parts(self, parts: int) -> list[onnx.NodeProto]:
        """The nodes in its place."""
        first, last = self.nodes[0], self.nodes[-1]
        heads = (*first.input, last.input[1])  # queries, keys, values
        split = {name: [f"{first.output[0]}:{name}:{part}" for part in range(parts)] for name in heads}
        own = {name for node in self.all for name in node.output}
        made = [make_node("Split", [name], names, axis=HEADS, num_outputs=parts) for name, names in split.items()]
        for part in range(parts):
            names = {name: each[part] for name, each in split.items()} | {name: f"{name}:{part}" for name in own}
            for node in self.nodes:
                made.append(_renamed(node, names))
                made += [_renamed(each, names) for each in self.extremes if each.input[0] == node.output[0]]
        joined = last.output[0]
        made.append(make_node("Concat", [f"{joined}:{part}" for part in range(parts)], [joined], axis=HEADS))
        for node in self.extremes:
            name = node.output[0]
            made.append(make_node(EXTREMES[node.op_type], [f"{name}:{part}" for part in range(parts)], [name]))
        return made


def _renamed(node: onnx.NodeProto, names: dict[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    for field in (copy.input, copy.output):
        renamed = [names.get(name, name) for name in field]
        del field[:]
        field.extend(renamed)
    copy.name = f"{node.op_type}:{copy.output[0]}"
    return copy


def _find(graph: onnx.GraphProto) -> list[_Attention]:
    readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            readers[name].append(node)
    outputs = {value.name for value in graph.output}
    begun = (_follow(node, readers, outputs) for node in graph.node if node.op_type == "MatMul")
    return [attention for attention in begun if attention is not None]


def _follow(
    first: onnx.NodeProto, readers: Mapping[str, Sequence[onnx.NodeProto]], outputs: Collection[str]
) -> _Attention | None:
    """The attention that begins with a product, or None where none does or something else reads its scores."""
    path, extremes = [first], []
    while path[-1] is first or path[-1].op_type in BETWEEN:
        name = path[-1].output[0]
        extremes += [node for node in readers[name] if node.op_type in EXTREMES]
        others = [node for node in readers[name] if node.op_type not in EXTREMES]
        if name in outputs or len(others) != 1 or others[0].input[0] != name:
            return None
        path += others
    if path[-1].op_type != "MatMul" or all(node.op_type != "Softmax" for node in path):
        return None
    return _Attention(tuple(path), tuple(extremes))
