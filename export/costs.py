"""What every step of a plan takes: bytes between its nodes and multiply-accumulates, counted in the graphs as they run.

In: the graphs of a bundle, and its plan. Out: the Costs that the bundle carries to devices (hart_edge/bundle/costs.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from hart_edge.bundle.costs import Costs, GraphCost, StepCost
from hart_edge.bundle.manifest import Manifest
from hart_edge.bundle.settings import Speed
from hart_edge.export.activations import ATTENTION, CONVOLUTIONS, MATRICES, steps_of


def count_costs(manifest: Manifest, folder: Path) -> Costs:
    """folder: of the bundle, which need not be finished. Takes a fraction of a second a step, whatever the weights."""
    graphs: dict[str, GraphCost] = {}
    counted: dict[tuple[object, ...], StepCost] = {}  # speeds have most of their steps in common
    speeds: dict[Speed, tuple[StepCost, ...]] = {}
    for speed in manifest.plans:
        steps = []
        for step, graph, shapes in steps_of(manifest, folder, speed):
            key = (step.graph, step.scale, *sorted(shapes.items()))
            if key not in counted:
                resolved = graph.resolve(shapes)
                found = graph.memory(resolved, [each.name for each in resolved.output])
                graphs[step.graph] = GraphCost(step.graph, found.matrices + found.kernels + found.tables, found.nodes)
                counted[key] = StepCost(step.graph, step.scale, found.activations, multiplies(resolved))
            steps.append(counted[key])
        speeds[speed] = tuple(steps)
    return Costs(tuple(graphs.values()), speeds.pop(Speed.EXACT), speeds or None)


def multiplies(resolved: Any) -> int:
    """Multiply-accumulates of a graph whose shapes are known, its products of matrices and convolutions."""
    dims = {tensor.name: list(tensor.dims) for tensor in resolved.initializer}
    for value in (*resolved.value_info, *resolved.input, *resolved.output):
        dims[value.name] = [entry.dim_value for entry in value.type.tensor_type.shape.dim]
    return sum(_multiplies(node, dims) for node in resolved.node)


def _multiplies(node: Any, dims: Mapping[str, list[int]]) -> int:
    """Numbers of the result, times the products that each of them sums."""
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    if node.op_type in CONVOLUTIONS:
        numbers = dims[node.input[0]] if node.op_type == "ConvTranspose" else dims[node.output[0]]
        kernels = dims[node.input[CONVOLUTIONS[node.op_type]]]  # (Out, In / group, ...)
        return math.prod(numbers) * math.prod(kernels[1:])
    if node.op_type in MATRICES:
        return math.prod(dims[node.output[0]]) * dims[node.input[0]][-2 if attributes.get("transA") else -1]
    if node.op_type == ATTENTION:
        queries, keys, values = (dims[name] for name in node.input)
        return queries[0] * queries[1] * keys[1] * (keys[2] + values[2])  # heads share the channels
    return 0
