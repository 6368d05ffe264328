"""Which nodes are quantizable, that is, can have INT8 weights."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper

from hart_edge.calib.quantizable_nodes import SMALLEST_WEIGHT, NodeKind, QuantizableNode, find_quantizable_nodes
from tests.calib.make_graphs import INT64, conv_model, linear_model, make_model, weight


def summary(nodes: list[QuantizableNode]) -> list[tuple]:
    return [(node.kind, node.activation, node.weight, node.bias, node.channel_axis) for node in nodes]


def test_matmul_in_node_order() -> None:
    assert summary(find_quantizable_nodes(linear_model().graph)) == [
        (NodeKind.LINEAR, "x", "first", None, 1),
        (NodeKind.LINEAR, "r", "second", None, 1),
    ]


def test_conv_with_bias() -> None:
    assert summary(find_quantizable_nodes(conv_model().graph)) == [
        (NodeKind.CONV, "x", "first", "bias.first", 0),
        (NodeKind.CONV, "h", "second", "bias.second", 0),
    ]


@pytest.mark.parametrize(("attributes", "axis"), [({}, 1), ({"transB": 0}, 1), ({"transB": 1}, 0)])
def test_gemm(attributes: dict[str, int], axis: int) -> None:
    """With transB a weight is (outputs, inputs); its channels are the outputs."""
    shape = (96, 64) if attributes.get("transB") else (64, 96)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], **attributes)
    model = make_model([node], [weight("w", *shape), weight("b", 96)], outputs={"y": ("B", 96)})
    assert summary(find_quantizable_nodes(model.graph)) == [(NodeKind.LINEAR, "x", "w", "b", axis)]


def test_gemm_of_a_transposed_activation_is_not_quantizable() -> None:
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transA=1)
    model = make_model([node], [weight("w", 64, 64)], {"x": (64, "B")})
    assert find_quantizable_nodes(model.graph) == []


def test_embedding() -> None:
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    model = make_model([node], [weight("table", 128, 64)], {"x": ("B",)}, dtype=INT64)
    assert summary(find_quantizable_nodes(model.graph)) == [(NodeKind.EMBEDDING, "x", "table", None, 0)]


def test_what_is_not_quantizable() -> None:
    """Constant activations, small weights, products of two activations, batched weights, integer tables."""
    indices = numpy_helper.from_array(np.array([1, 0]), "order")
    integers = numpy_helper.from_array(np.arange(8192).reshape(128, 64), "integers")
    nodes = [
        helper.make_node("MatMul", ["constant", "w"], ["a"]),
        helper.make_node("MatMul", ["x", "small"], ["b"]),
        helper.make_node("MatMul", ["x", "w.T"], ["c"]),
        helper.make_node("MatMul", ["x", "batched"], ["d"]),
        helper.make_node("Gather", ["integers", "order"], ["e"]),
        helper.make_node("Gather", ["x", "order"], ["f"]),
        helper.make_node("Transpose", ["w"], ["w.T"]),
        helper.make_node("Add", ["x", "w"], ["y"]),
    ]
    nodes.insert(2, nodes.pop(6))
    initializers = [weight("w", 64, 64), weight("constant", 64, 64), weight("small", 64, 63)]
    initializers += [weight("batched", 2, 64, 64), indices, integers]
    model = make_model(nodes, initializers, {"x": (64, 64)}, {"y": (64, 64)})
    assert 64 * 63 < SMALLEST_WEIGHT == 64 * 64
    assert find_quantizable_nodes(model.graph) == []
