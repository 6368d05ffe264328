"""The kernels with which ONNX Runtime runs a graph, after its own optimisation."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from hart_edge.calib.quantizable_nodes import SMALLEST_WEIGHT
from hart_edge.engines.onnxruntime.library import session_options

# For each kernel: which of its inputs is the weight, and which the zero point of the activation, which has its type.
# Other versions of ONNX Runtime may choose other kernels.
INTEGER_KERNELS = {
    "MatMulIntegerToFloat": (1, 4),
    "MatMulInteger": (1, 2),
    "QLinearMatMul": (3, 2),
    "QGemm": (3, 2),
    "QLinearConv": (3, 2),
}
FLOAT_KERNELS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "Conv", "FusedConv", "TransposeMatMul")


def optimised_graph(folder: Path, model: onnx.ModelProto | Path) -> onnx.GraphProto:
    """The graph after ONNX Runtime's own optimisation, with the session options of a runner."""
    options = session_options(onnxruntime, None)
    options.log_severity_level = 4  # no warning that the file is for this machine only
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    source = model if isinstance(model, Path) else folder / "given.onnx"
    if isinstance(model, onnx.ModelProto):
        onnx.save_model(model, source)
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimised.onnx", load_external_data=False).graph


def optimised(folder: Path, model: onnx.ModelProto | Path) -> Counter[str]:
    """Operators after that optimisation; those of FLOAT_KERNELS only where they read a weight."""
    graph = optimised_graph(folder, model)
    large = {tensor.name for tensor in graph.initializer if np.prod(tensor.dims) >= SMALLEST_WEIGHT}
    restored = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in large}
    return Counter(
        node.op_type for node in graph.node if node.op_type not in FLOAT_KERNELS or {*node.input} & (large | restored)
    )
