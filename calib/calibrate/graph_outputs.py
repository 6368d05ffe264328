"""A graph with range outputs: of each tensor its extremes and means per channel, and a few of its rows.

The engine computes them, so that what it returns is small however large a tensor is. Channels are the last axis, or
axis 1 of what a convolution reads or writes; a row holds all channels of one position.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hart_edge.calib.calibrate.statistics import ROWS
from hart_edge.calib.quantizable_nodes import find_quantizable_nodes, image_tensors

PICK = "observe:pick"  # the further input: (ROWS,) float32, ascending in [0, 1), the places of the rows to return
PARTS = ("low", "high", "mean", "rows")


def with_range_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """The graph with further outputs `NAME:low`, `:high`, `:mean` (C,) and `:rows` (ROWS, C) of each name."""
    instrumented = onnx.ModelProto()
    instrumented.CopyFrom(model)
    graph = instrumented.graph
    graph.input.append(helper.make_tensor_value_info(PICK, TensorProto.FLOAT, [ROWS]))
    constants = {"first": [0], "flat": [-1], "rows": [0, 2], "plane": [0, 0, -1]}
    for name, values in constants.items():
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), f"observe:{name}"))
    images = image_tensors(find_quantizable_nodes(model.graph))
    _insert(graph, {name: _image_outputs(name) if name in images else _row_outputs(name) for name in names})
    for name in names:
        for part in PARTS:
            shape = [ROWS, None] if part == "rows" else [None]
            graph.output.append(helper.make_tensor_value_info(f"{name}:{part}", TensorProto.FLOAT, shape))
    return instrumented


def with_extremes(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """The graph with further outputs `NAME:low` and `NAME:high`, scalars, of each name."""
    instrumented = onnx.ModelProto()
    instrumented.CopyFrom(model)
    parts = (("ReduceMin", "low"), ("ReduceMax", "high"))
    _insert(
        instrumented.graph,
        {name: [helper.make_node(op, [name], [f"{name}:{part}"], keepdims=0) for op, part in parts] for name in names},
    )
    for name in names:
        for _, part in parts:
            instrumented.graph.output.append(helper.make_tensor_value_info(f"{name}:{part}", TensorProto.FLOAT, []))
    return instrumented


def _insert(graph: onnx.GraphProto, observers: Mapping[str, Sequence[onnx.NodeProto]]) -> None:
    """Put the nodes that look at a tensor right behind the one that makes it, so that an engine which keeps to this
    order need not keep the tensor for them: else all tensors of all blocks are in memory at once."""
    left = dict(observers)
    ordered = [node for value in graph.input for node in left.pop(value.name, ())]
    for node in graph.node:
        ordered.append(node)
        ordered += (each for output in node.output for each in left.pop(output, ()))
    ordered += (node for rest in left.values() for node in rest)  # of initialisers
    nodes = [copy.deepcopy(node) for node in ordered]
    del graph.node[:]
    graph.node.extend(nodes)


def _row_outputs(name: str) -> list[onnx.NodeProto]:
    """The nodes for a tensor (..., C), whose rows run over all axes but the last."""
    own = [f"{name}:observe:{part}" for part in ("shape", "channels", "to", "flat", "count", "place", "index")]
    shape, channels, to, flat, count, place, index = own
    return [
        helper.make_node("Shape", [name], [channels], start=-1),
        helper.make_node("Concat", ["observe:flat", channels], [to], axis=0),
        helper.make_node("Reshape", [name, to], [flat]),  # (rows, C)
        helper.make_node("Shape", [flat], [shape], start=0, end=1),
        helper.make_node("Cast", [shape], [count], to=TensorProto.FLOAT),
        helper.make_node("Mul", [PICK, count], [place]),
        helper.make_node("Cast", [place], [index], to=TensorProto.INT64),  # rounds towards zero
        helper.make_node("Gather", [flat, index], [f"{name}:rows"], axis=0),
        *_reductions(name, flat, "observe:first"),
    ]


def _image_outputs(name: str) -> list[onnx.NodeProto]:
    """The nodes for a tensor (B, C, H, W), whose rows are the positions of the first picture."""
    own = [f"{name}:observe:{part}" for part in ("flat", "count", "number", "place", "index", "picked", "picture")]
    flat, count, number, place, index, picked, picture = own
    return [
        helper.make_node("Reshape", [name, "observe:plane"], [flat]),  # (B, C, positions)
        helper.make_node("Shape", [flat], [count], start=2),
        helper.make_node("Cast", [count], [number], to=TensorProto.FLOAT),
        helper.make_node("Mul", [PICK, number], [place]),
        helper.make_node("Cast", [place], [index], to=TensorProto.INT64),
        helper.make_node("Gather", [flat, index], [picked], axis=2),  # (B, C, ROWS)
        helper.make_node("Transpose", [picked], [picture], perm=[0, 2, 1]),
        helper.make_node("Gather", [picture, "observe:first"], [f"{name}:picture"], axis=0),
        helper.make_node("Squeeze", [f"{name}:picture", "observe:first"], [f"{name}:rows"]),
        *_reductions(name, flat, "observe:rows"),
    ]


def _reductions(name: str, flat: str, axes: str) -> list[onnx.NodeProto]:
    pairs = (("ReduceMin", "low"), ("ReduceMax", "high"), ("ReduceMean", "mean"))
    return [helper.make_node(op, [flat, axes], [f"{name}:{part}"], keepdims=0) for op, part in pairs]
