"""What ONNX Runtime's matrix products reach on this machine, measured beside what is held against it.

Out: multiply-accumulates a second in float32 and in INT8. It is the best of several runs, since a ceiling is what a
machine can do, not what it mostly does beside other work.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.checks.bench.onnx_bytes import product_model
from hart_edge.engines.onnxruntime.library import load_library, session_options

# A feed-forward product of the published transformer with its rows at 256 px, and one of the size of a small model's.
SHAPES = ((512, 1024, 4096), (128, 256, 1024))
SECONDS, LEAST = 0.25, 3  # of a product: for so long, and so many times
FLOAT32, INT8 = "float32", "INT8"


def measure_peak(threads: int | None) -> dict[str, float]:
    """Multiply-accumulates a second in float32 and in INT8: UINT8 by INT8, the operands of every scheme of a CPU."""
    generator = np.random.default_rng(0)
    found = {FLOAT32: 0.0, INT8: 0.0}
    for rows, width, columns in SHAPES:
        x = generator.standard_normal((rows, width), np.float32)
        weight = generator.standard_normal((width, columns), np.float32)
        x8, weight8 = (x * 32 + 128).clip(0, 255).astype(np.uint8), (weight * 16).clip(-64, 64).astype(np.int8)
        graphs: dict[str, tuple[bytes, NDArray[Any]]] = {
            FLOAT32: (product_model("MatMul", weight, rows, "float32", "float32"), x),
            INT8: (product_model("MatMulInteger", weight8, rows, "uint8", "int32"), x8),
        }
        for name, (graph, given) in graphs.items():
            found[name] = max(found[name], rows * width * columns / _seconds(graph, given, threads))
    return found


def _seconds(model: bytes, x: NDArray[Any], threads: int | None) -> float:
    """The quickest run."""
    library = load_library()
    session = library.InferenceSession(model, session_options(library, threads), providers=["CPUExecutionProvider"])
    times = list[float]()
    session.run(None, {"x": x})
    begin = time.perf_counter()
    while len(times) < LEAST or time.perf_counter() - begin < SECONDS:
        started = time.perf_counter()
        session.run(None, {"x": x})
        times.append(time.perf_counter() - started)
    return min(times)
