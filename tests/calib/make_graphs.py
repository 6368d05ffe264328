"""Small ONNX graphs with seeded weights, and a function that runs them in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hart_edge.bundle.manifest import Target
from hart_edge.engines.registry import REGISTRY

Arrays = dict[str, NDArray]
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def weight(name: str, *shape: int, seed: int = 0, spread: float = 0.1) -> onnx.TensorProto:
    values = np.random.default_rng(seed).standard_normal(shape) * spread
    return numpy_helper.from_array(values.astype(np.float32), name)


def make_model(
    nodes: list[onnx.NodeProto],
    initializers: list[onnx.TensorProto],
    inputs: dict[str, tuple] | None = None,
    outputs: dict[str, tuple] | None = None,
    dtype: int = FLOAT,
) -> onnx.ModelProto:
    """A graph named `small`, by default x -> y."""
    values = [
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in given.items()]
        for given, kind in ((inputs or {"x": ("B", 64)}, dtype), (outputs or {"y": ("B", 64)}, FLOAT))
    ]
    graph = helper.make_graph(nodes, "small", *values, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def linear_model(seed: int = 0) -> onnx.ModelProto:
    """y = relu(x @ first) @ second, 64 channels everywhere."""
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "second"], ["y"]),
    ]
    return make_model(nodes, [weight("first", 64, 64, seed=seed), weight("second", 64, 64, seed=seed + 1)])


def conv_model() -> onnx.ModelProto:
    """y = conv(conv(x)), 32 channels, with biases; the second reads what the first writes."""
    nodes = [
        helper.make_node("Conv", ["x", "first", "bias.first"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["h", "second", "bias.second"], ["y"], pads=[1, 1, 1, 1]),
    ]
    initializers = [weight("first", 32, 32, 3, 3), weight("second", 32, 32, 3, 3, seed=1)]
    initializers += [weight("bias.first", 32, seed=2), weight("bias.second", 32, seed=3)]
    return make_model(nodes, initializers, {"x": ("B", 32, 8, 8)}, {"y": ("B", 32, 8, 8)})


def run_model(folder: Path, model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    path = folder / f"{model.graph.name}-{len(list(folder.iterdir()))}.onnx"
    onnx.save_model(model, path)
    return REGISTRY.library(Target.CPU).open(path).run(inputs)


def write_model(folder: Path, model: onnx.ModelProto) -> dict[str, Path]:
    """Write the model to a file; return its path by the graph's name."""
    path = folder / f"{model.graph.name}.onnx"
    onnx.save_model(model, path)
    return {model.graph.name: path}


def initializer(model: onnx.ModelProto, name: str) -> NDArray:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))
