"""Engine libraries: which are usable, the reasons why others are not, and errors that name the graph."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from hart_edge.bundle.manifest import Target
from hart_edge.engines.base import Availability
from hart_edge.engines.onnxruntime.library import OnnxRuntimeLibrary
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import EngineError

CPU = REGISTRY.library(Target.CPU)
X = {"x": np.array([[1.0, -2.0]], np.float32)}


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """double = x + x, negative = -x, for x (B, 2)."""
    values = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", 2]) for n in ("x", "double", "negative")}
    nodes = [helper.make_node("Add", ["x", "x"], ["double"]), helper.make_node("Neg", ["x"], ["negative"])]
    graph = helper.make_graph(nodes, "doubling", [values["x"]], [values["double"], values["negative"]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = tmp_path / "doubling.onnx"
    onnx.save_model(model, path)
    return path


def test_cpu_is_usable() -> None:
    assert CPU.availability() == Availability(
        Target.CPU, True, f"onnxruntime {onnxruntime.__version__}, CPUExecutionProvider"
    )


@pytest.mark.parametrize(("target", "extra"), [(Target.CPU, "cpu"), (Target.CUDA, "gpu")])
def test_not_installed(monkeypatch: pytest.MonkeyPatch, doubling: Path, target: Target, extra: str) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = OnnxRuntimeLibrary(target).availability()
    assert not found.usable
    assert re.fullmatch(rf"onnxruntime is not installed \(.+\); pip install 'hart-edge\[{extra}\]'", found.detail)
    with pytest.raises(EngineError, match=rf"^doubling: target {target}: onnxruntime is not installed"):
        OnnxRuntimeLibrary(target).open(doubling)


def test_provider_is_missing(monkeypatch: pytest.MonkeyPatch, doubling: Path) -> None:
    fake = types.SimpleNamespace(__version__="1.99", get_available_providers=lambda: ["CPUExecutionProvider"])
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    found = OnnxRuntimeLibrary(Target.CUDA).availability()
    expected = (
        "expected CUDAExecutionProvider in ONNX Runtime 1.99, found CPUExecutionProvider; "
        "pip install 'hart-edge[gpu]' or build for cpu"
    )
    assert found == Availability(Target.CUDA, False, expected)
    with pytest.raises(
        EngineError, match=r"^doubling: target cuda: expected CUDAExecutionProvider in ONNX Runtime 1.99, found"
    ):
        OnnxRuntimeLibrary(Target.CUDA).open(doubling)


def test_run(doubling: Path) -> None:
    session = CPU.open(doubling)
    found = session.run(X)
    assert {name: value.tolist() for name, value in found.items()} == {
        "double": [[2.0, -4.0]],
        "negative": [[-1.0, 2.0]],
    }
    assert list(session.run(X, ["negative"])) == ["negative"]
    assert session.run({"x": np.zeros((0, 2), np.float32)})["double"].shape == (0, 2)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({}, None),
        ({"x": np.zeros((1, 3), np.float32)}, None),
        ({"x": np.zeros((1, 2), np.float64)}, None),
        ({"y": np.zeros((1, 2), np.float32)}, None),
        (X, ["triple"]),
    ],
)
def test_a_failing_run_names_the_graph(
    doubling: Path, inputs: dict[str, np.ndarray], outputs: list[str] | None
) -> None:
    with pytest.raises(
        EngineError, match=r"(?s)^doubling: ONNX Runtime failed while running \(.+\); inputs were "
    ) as caught:
        CPU.open(doubling).run(inputs, outputs)
    assert caught.value.__cause__ is not None  # the library's own error is kept


@pytest.mark.parametrize("content", [b"", b"not a graph", None])
def test_a_refused_graph_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "transformer.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EngineError, match=r"^transformer: ONNX Runtime \d+\.\S+ refused this graph \("):
        CPU.open(path)


def test_an_unknown_operator_is_named(doubling: Path) -> None:
    model = onnx.load(doubling)
    model.graph.node[0].op_type = "Quadruple"
    onnx.save_model(model, doubling)
    with pytest.raises(EngineError, match=r"^doubling: ONNX Runtime .* refused this graph \(.*Quadruple"):
        CPU.open(doubling)
