"""What ONNX Runtime's matrix products reach on this machine: the ceiling that a bundle's graphs are held against.

Out: multiply-accumulates a second in float32, and in INT8 for the best of the schemes that builds know for CPUs.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.scheme import Scheme
from hart_edge.engines.onnxruntime.library import load_library, session_options

ROWS, WIDTH, COLUMNS = 512, 1024, 4096  # a feed-forward product of the published transformer, and its rows at 256 px
RUNS = 7


def measure_peak(threads: int | None) -> dict[str, float]:
    """Multiply-accumulates a second by the name of a scheme; medians of RUNS after one."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((ROWS, WIDTH), np.float32)
    weight = generator.standard_normal((WIDTH, COLUMNS), np.float32) / WIDTH**0.5
    product = _product(weight)
    graphs = {
        str(Scheme.FLOAT32): product,
        str(Scheme.U8S8): apply_scheme(product, Scheme.U8S8, {"x": (-4.0, 4.0)}),
        "dynamic INT8": _dynamic(weight),
    }
    return {name: ROWS * WIDTH * COLUMNS / _seconds(graph, {"x": rows}, threads) for name, graph in graphs.items()}


def _product(weight: np.ndarray) -> onnx.ModelProto:
    return _model([helper.make_node("MatMul", ["x", "w"], ["y"], name="product")], numpy_helper.from_array(weight, "w"))


def _dynamic(weight: np.ndarray) -> onnx.ModelProto:
    """Activations quantised at every run, weights per channel."""
    scale = (np.abs(weight).max(0) / 127).astype(np.float32)
    constants = {
        "w": np.round(weight / scale).astype(np.int8),
        "scale": scale,
        "zero": np.zeros(COLUMNS, np.int8),
    }
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["x8", "step", "offset"], name="quantize"),
        helper.make_node("MatMulInteger", ["x8", "w", "offset", "zero"], ["sum"], name="product"),
        helper.make_node("Cast", ["sum"], ["float"], to=TensorProto.FLOAT, name="float"),
        helper.make_node("Mul", ["step", "scale"], ["steps"], name="steps"),
        helper.make_node("Mul", ["float", "steps"], ["y"], name="restore"),
    ]
    return _model(nodes, *(numpy_helper.from_array(value, name) for name, value in constants.items()))


def _model(nodes: list[onnx.NodeProto], *constants: onnx.TensorProto) -> onnx.ModelProto:
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [ROWS, WIDTH])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [ROWS, COLUMNS])
    graph = helper.make_graph(nodes, "peak", [given], [made], list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _seconds(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], threads: int | None) -> float:
    library = load_library()
    options = session_options(library, threads)
    session = library.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    times = []
    for _ in range(1 + RUNS):
        begin = time.perf_counter()
        session.run(None, dict(feeds))
        times.append(time.perf_counter() - begin)
    return statistics.median(times[1:])
