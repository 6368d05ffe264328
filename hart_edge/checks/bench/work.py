"""Multiply-accumulates of every step of a bundle's plan, counted in its graphs as they are run.

In: a bundle of graphs. Out: per step the products of matrices and convolutions, guidance's second branch included.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import onnx

from hart_edge.bundle.verify import Bundle
from hart_edge.checks.activations import ATTENTION, CONVOLUTIONS, MATRICES, Graph, steps_of


def count_steps(bundle: Bundle) -> list[int]:
    """Of one picture, a number a step."""
    return [count(graph, shapes) for _, graph, shapes in steps_of(bundle)]


def count(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """shapes: of every input."""
    resolved = graph.resolve(shapes)
    dims = {tensor.name: list(tensor.dims) for tensor in resolved.initializer}
    for value in (*resolved.value_info, *resolved.input, *resolved.output):
        dims[value.name] = [entry.dim_value for entry in value.type.tensor_type.shape.dim]
    return sum(_multiplies(node, dims) for node in resolved.node)


def _multiplies(node: Any, dims: Mapping[str, list[int]]) -> int:
    """Numbers of the result, times the products that each of them sums."""
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type in CONVOLUTIONS:
        numbers = dims[node.output[0]] if node.op_type == "Conv" else dims[node.input[0]]
        return math.prod(numbers) * math.prod(dims[node.input[1]][1:])  # kernels (Out, In / group, ...)
    if node.op_type in MATRICES:
        return math.prod(dims[node.output[0]]) * dims[node.input[0]][-2 if attributes.get("transA") else -1]
    if node.op_type == ATTENTION:
        queries, keys, values = (dims[name] for name in node.input)
        return queries[0] * queries[1] * keys[1] * (keys[2] + values[2])  # heads share the channels
    return 0
