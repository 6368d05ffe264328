"""4-bit blocks: the numbers that ONNX Runtime's operator restores, and graphs that are rewritten with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.rewrite.int4 import BLOCK, quantize_blocks
from hart_edge.calib.scheme import Scheme
from hart_edge.export.activations import Graph
from hart_edge.export.costs import multiplies


def restored(weight: np.ndarray) -> np.ndarray:
    """What the packed numbers stand for: (K, N)"""
    inner, outer = weight.shape
    packed, scales, zeros = quantize_blocks(weight)
    blocks = packed.shape[1]
    numbers = np.stack([packed & 15, packed >> 4], -1).reshape(outer, blocks, BLOCK).astype(np.float32)
    halves = zeros.reshape(outer, -1)
    points = np.stack([halves & 15, halves >> 4], -1).reshape(outer, -1)[:, :blocks, None]
    return ((numbers - points) * scales.reshape(outer, blocks, 1)).reshape(outer, -1)[:, :inner].T


@pytest.mark.parametrize("shape", [(64, 5), (96, 3), (40, 7)])
def test_a_block_has_sixteen_levels(shape: tuple[int, int]) -> None:
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    found = restored(weight)
    assert np.abs(found - weight).max() < 0.5
    assert np.sqrt(np.square(found - weight).mean()) < 0.1
    for column in found.T:
        assert len(np.unique(column[:BLOCK])) <= 16


def test_zeros_stay_zeros_and_scales_are_a_blocks_own() -> None:
    weight = np.zeros((64, 2), np.float32)
    weight[:32, 1] = np.linspace(-1, 1, 32)
    found = restored(weight)
    assert (found[:, 0] == 0).all() and (found[32:] == 0).all()
    assert np.abs(found[:32, 1] - weight[:32, 1]).max() < 0.15


def make_model() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    weights = {
        "table": random.standard_normal((100, 64)).astype(np.float32),
        "one": (random.standard_normal((64, 96)) / 8).astype(np.float32),
        "two": (random.standard_normal((96, 64)) / 8).astype(np.float32),
        "bias": random.standard_normal(96).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "one"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["h"]),
        helper.make_node("MatMul", ["h", "two"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "text_model",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["B", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 5, 64])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), weights


def test_a_graph_with_4_bit_products(tmp_path: Path) -> None:
    model, weights = make_model()
    found = apply_scheme(model, Scheme.INT4_BLOCKS, {})
    assert [node.op_type for node in found.graph.node].count("MatMulNBits") == 2
    held = {tensor.name: tensor.data_type for tensor in found.graph.initializer}
    assert "one" not in held and held["one:q4"] == TensorProto.UINT8 and held["table:s8"] == TensorProto.INT8
    path = tmp_path / "graph.onnx"
    onnx.save_model(found, path)
    ids = np.array([[1, 2, 99, 0, 5]])
    (y,) = onnxruntime.InferenceSession(str(path)).run(None, {"ids": ids})
    x = weights["table"][ids]
    exact = (x @ weights["one"] + weights["bias"]) @ weights["two"]
    rounded = (x @ restored(weights["one"]) + weights["bias"]) @ restored(weights["two"])
    assert np.abs(y - rounded).max() < 0.05 * np.abs(exact).max()  # INT8 activations and rows
    assert np.abs(y - exact).max() < 0.25 * np.abs(exact).max()
    graph = Graph(path)
    resolved = graph.resolve({"ids": (1, 5)})
    assert multiplies(resolved) == 2 * 5 * 64 * 96
    assert graph.memory(resolved, ["y"]).tables > 2 * 64 * 96 / 2


def test_excluded_weights_stay_as_they_are() -> None:
    model, _ = make_model()
    found = apply_scheme(model, Scheme.INT4_BLOCKS, {}, excluded={"two"})
    assert [node.op_type for node in found.graph.node].count("MatMulNBits") == 1
    assert "two" in {tensor.name for tensor in found.graph.initializer}
