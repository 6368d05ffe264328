"""Where a graph can hold INT8: MatMul, Gemm and Conv nodes with a constant weight, and embedding tables.

In: an ONNX graph. Out: QuantizableNode objects. calibrate/ takes ranges of their activations, rewrite/int8.py quantises
them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx  # for annotations only: the command line reads schemes and works without onnx

FLOAT = 1  # onnx.TensorProto.FLOAT
SMALLEST_WEIGHT = 4096  # elements; a smaller weight saves nothing and is often sensitive
# The codebook: distances to its rows decide the encoder's codes, and whoever decodes them has the exact rows.
EXACT = frozenset({"quantizer.codebook.weight"})


class NodeKind(StrEnum):
    LINEAR = "linear"  # MatMul or Gemm
    CONV = "conv"
    EMBEDDING = "embedding"  # Gather of rows


@dataclass(frozen=True)
class QuantizableNode:
    """One node with a constant weight.

    proto: the node in its graph; activation: the input that is no weight (an embedding's indices); channel_axis: of the
    weight, the axis of its outputs (of an embedding, that of its rows).
    """

    kind: NodeKind
    proto: onnx.NodeProto
    activation: str
    weight: str
    bias: str | None
    channel_axis: int


def find_quantizable_nodes(graph: onnx.GraphProto) -> list[QuantizableNode]:
    """All quantizable nodes of a graph, in its order."""
    weights = {
        tensor.name: tensor
        for tensor in graph.initializer
        if tensor.data_type == FLOAT and math.prod(tensor.dims) >= SMALLEST_WEIGHT and tensor.name not in EXACT
    }
    constants = {tensor.name for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in weights and len(weights[node.input[0]].dims) == 2:
            nodes.append(QuantizableNode(NodeKind.EMBEDDING, node, node.input[1], node.input[0], None, 0))
        if node.op_type not in ("MatMul", "Gemm", "Conv") or node.input[1] not in weights:
            continue
        if node.input[0] in constants:
            continue
        bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Conv":
            kind, axis = NodeKind.CONV, 0
        else:
            transposed = node.op_type == "Gemm" and "transB" in attributes and attributes["transB"].i == 1
            kind, axis = NodeKind.LINEAR, 0 if transposed else 1
            if "transA" in attributes and attributes["transA"].i:
                continue
            if len(weights[node.input[1]].dims) != 2:
                continue
        nodes.append(QuantizableNode(kind, node, node.input[0], node.input[1], bias, axis))
    return nodes


def image_tensors(nodes: Iterable[QuantizableNode]) -> frozenset[str]:
    """The tensors that convolutions read or write, (B, C, H, W): their channels are axis 1, others' the last axis."""
    convolutions = [node for node in nodes if node.kind is NodeKind.CONV]
    return frozenset(name for node in convolutions for name in (node.activation, node.proto.output[0]))


def describe_tensor(nodes: Iterable[QuantizableNode], name: str) -> str:
    """A tensor's name with that of a weight beside it, as in `x of mlp.down`, since exporters only number tensors."""
    weights = [node.weight for node in nodes if name in (node.activation, node.proto.output[0])]
    return f"{name} of {weights[0]}" if weights else name
