"""Attention in parts of the heads puts out what the whole does, and leaves alone what is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hart_edge.bundle.manifest import Target
from hart_edge.calib.calibrate.graph_outputs import with_extremes
from hart_edge.calib.rewrite.attention_parts import LibraryInParts, attend_in_parts
from hart_edge.engines.registry import REGISTRY

CPU = REGISTRY.library(Target.CPU)
HEADS = 5
SCORES = ("scores", "biased", "weights")
NODES = (
    helper.make_node("Transpose", ["k"], ["k_t"], perm=[0, 1, 3, 2]),
    helper.make_node("MatMul", ["q", "k_t"], ["scores"]),
    helper.make_node("Add", ["scores", "bias"], ["biased"]),
    helper.make_node("Softmax", ["biased"], ["weights"], axis=-1),
    helper.make_node("Relu", ["v"], ["v_late"]),  # is made between the two products
    helper.make_node("MatMul", ["weights", "v_late"], ["heads"]),
    helper.make_node("Neg", ["heads"], ["y"]),
)


def model(*further: onnx.NodeProto, name: str = "transformer", outputs: tuple[str, ...] = ("y",)) -> onnx.ModelProto:
    shapes = {each: [None, HEADS, None, 4] for each in "qkv"} | {"bias": [None]}
    inputs = [helper.make_tensor_value_info(each, TensorProto.FLOAT, shape) for each, shape in shapes.items()]
    results = [helper.make_tensor_value_info(each, TensorProto.FLOAT, None) for each in outputs]
    graph = helper.make_graph([*NODES, *further], name, inputs, results)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def inputs(images: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    shapes = {"q": (images, HEADS, 3, 4), "k": (images, HEADS, 7, 4), "v": (images, HEADS, 7, 4), "bias": (7,)}
    return {name: 3 * random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def write(folder: Path, graph: onnx.ModelProto) -> Path:
    path = folder / "graph.onnx"
    onnx.save_model(graph, path)
    return path


@pytest.mark.parametrize("parts", [1, 2, 3, HEADS])
@pytest.mark.parametrize("images", [2, 0])
def test_parts_put_out_what_the_whole_does(tmp_path: Path, parts: int, images: int) -> None:
    path = write(tmp_path, with_extremes(model(), [*SCORES, "heads", "q"]))
    expected = CPU.open(path).run(inputs(images))
    found = LibraryInParts(CPU, parts).open(path).run(inputs(images))
    assert found.keys() == expected.keys() and len(found) == 11
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, err_msg=name)
    assert [each.name for each in tmp_path.iterdir()] == ["graph.onnx"]


def test_no_tensor_has_the_scores_of_all_heads() -> None:
    graph = with_extremes(model(), SCORES)
    assert attend_in_parts(graph, HEADS) == 1
    made = [name for node in graph.graph.node for name in node.output]
    assert not set(made) & set(SCORES) and len(set(made)) == len(made)
    assert sum(node.op_type == "Softmax" for node in graph.graph.node) == HEADS
    assert any(node.name for node in graph.graph.node)


@pytest.mark.parametrize(
    "graph",
    [
        pytest.param(model(outputs=("y", "weights")), id="scores put out"),
        pytest.param(model(helper.make_node("Exp", ["scores"], ["other"])), id="scores read elsewhere"),
        pytest.param(model(helper.make_node("ReduceMean", ["weights"], ["other"])), id="mean of scores"),
    ],
)
def test_attention_whose_scores_are_read_stays_whole(graph: onnx.ModelProto) -> None:
    before = graph.SerializeToString(deterministic=True)
    assert attend_in_parts(graph, 2) == 0
    assert graph.SerializeToString(deterministic=True) == before


def test_other_graphs_are_opened_as_they_are(tmp_path: Path) -> None:
    class Recorder:
        def availability(self):
            return CPU.availability()

        def open(self, graph: Path, *, in_order: bool = False) -> tuple[Path, bool]:
            return graph, in_order

    library = LibraryInParts(Recorder(), 2)
    path = write(tmp_path, model(name="decoder"))
    assert library.open(path) == (path, False) and library.open(path, in_order=True) == (path, True)
    assert library.availability() == CPU.availability()
    path = write(tmp_path, model())
    assert library.open(path) == (tmp_path / "graph.parts.onnx", True)
