"""Graphs of a few nodes, which TensorRT builds in a second, and builders for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hart_edge.engines.base import Profile
from hart_edge.engines.tensorrt.builder import TensorRTBuilder
from hart_edge.engines.tensorrt.facts import TENSORRT, TENSORRT_RTX

RTX = TensorRTBuilder(TENSORRT_RTX)
# The code path of classic TensorRT, which only its vendor's index has, run with TensorRT-RTX, which is installed.
CLASSIC_FACTS = replace(TENSORRT, module="tensorrt_rtx", package="tensorrt-rtx", majors=range(1, 2))
CLASSIC = TensorRTBuilder(CLASSIC_FACTS, gpu=lambda: "sm_87")  # as on a Jetson Orin

PROFILES = tuple(Profile(scale, {"x": ((1, n, 64), (1, n, 64), (2, n, 64))}) for scale, n in enumerate((1, 4, 9)))


def write_graph(folder: Path, nodes: list[onnx.NodeProto], *weights: onnx.TensorProto, name: str = "small") -> Path:
    """x (B, n, 64) -> y (B, n, 64)."""
    values = [helper.make_tensor_value_info(tensor, TensorProto.FLOAT, ["B", "n", 64]) for tensor in ("x", "y")]
    for node in nodes:
        node.name = node.name or f"node_{node.output[0]}"
    graph = helper.make_graph(nodes, name, values[:1], values[1:], list(weights))
    path = folder / f"{name}.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def silu_graph(folder: Path, name: str = "small") -> Path:
    """y = silu(x @ weight), FP16 between."""
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float16)
    nodes = [
        helper.make_node("Cast", ["x"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["half", "weight"], ["h"]),
        helper.make_node("Sigmoid", ["h"], ["gate"]),
        helper.make_node("Mul", ["h", "gate"], ["silu"]),
        helper.make_node("Cast", ["silu"], ["y"], to=TensorProto.FLOAT),
    ]
    return write_graph(folder, nodes, numpy_helper.from_array(weight, "weight"), name=name)
