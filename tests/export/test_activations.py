"""The memory that a graph needs while it runs, compared with sums by hand."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hart_edge.export.activations import Graph, GraphMemory
from hart_edge.export.costs import multiplies

KB = 1024


def save(path: Path, dtype: type = np.float32) -> Path:
    """x (n, 256) -> MatMul (n, 512) -> Sigmoid -> Reshape -> MatMul y (n, 256) -> Transpose z (256, n)"""
    weights = [numpy_helper.from_array(np.zeros(shape, dtype), name)
               for name, shape in (("w", (256, 512)), ("v", (512, 256)))]  # fmt: skip
    held = ["w", "v"]
    nodes = []
    if dtype is np.float16:  # as on a CPU: FP16 weights are cast once, at loading
        nodes = [helper.make_node("Cast", [name], [f"{name}.32"], to=TensorProto.FLOAT) for name in held]
        held = ["w.32", "v.32"]
    nodes += [
        helper.make_node("MatMul", ["x", held[0]], ["h"]),
        helper.make_node("Sigmoid", ["h"], ["s"]),
        helper.make_node("Reshape", ["s", "shape"], ["r"]),
        helper.make_node("MatMul", ["r", held[1]], ["y"]),
        helper.make_node("Transpose", ["y"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "counted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 256))],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, (256, "n"))],
        [*weights, numpy_helper.from_array(np.array([-1, 512], np.int64), "shape")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def memory(graph: Graph, shapes: dict[str, tuple[int, ...]], provided: list[str]) -> GraphMemory:
    return graph.memory(graph.resolve(shapes), provided)


def test_tensors_are_freed_computed_in_place_and_reshaped_without_a_copy(tmp_path: Path) -> None:
    graph = Graph(save(tmp_path / "graph.onnx"))
    # h, s and r share one buffer of 8 kB; y needs 4 kB beside it, later z needs 4 kB beside y
    assert memory(graph, {"x": (4, 256)}, []).activations == 12 * KB
    assert memory(graph, {"x": (8, 256)}, []).activations == 24 * KB
    assert memory(graph, {"x": (4, 256)}, ["y", "z"]).activations == 8 * KB


def test_attention_needs_its_whole_result_and_is_counted(tmp_path: Path) -> None:
    """Queries (1, 4, 6), keys (1, 9, 6) and values (1, 9, 8), two heads: a result of 4 x 8, and no scores."""
    taken = {"q": (1, 4, 6), "k": (1, 9, 6), "v": (1, 9, 8)}
    nodes = [
        helper.make_node("Neg", ["k"], ["n"]),
        helper.make_node("MultiHeadAttention", ["q", "n", "v"], ["h"], domain="com.microsoft", num_heads=2, scale=1.0),
        helper.make_node("Neg", ["h"], ["y"]),
    ]
    inputs, (output,) = (
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in each.items()]
        for each in (taken, {"y": (1, 4, 8)})
    )
    domains = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(helper.make_graph(nodes, "a", inputs, [output]), opset_imports=domains, ir_version=9)
    onnx.save(model, tmp_path / "graph.onnx")
    graph = Graph(tmp_path / "graph.onnx")
    assert memory(graph, taken, []).activations == (9 * 6 + 4 * 8) * 4
    assert multiplies(graph.resolve(taken)) == 4 * 9 * (6 + 8)


def test_weights_count_in_the_type_they_are_kept_in(tmp_path: Path) -> None:
    products = 2 * 256 * 512 * 4
    for dtype in (np.float32, np.float16):
        found = memory(Graph(save(tmp_path / f"{dtype.__name__}.onnx", dtype)), {"x": (4, 256)}, ["z"])
        assert found == GraphMemory(12 * KB, products, 0, 16, nodes=5), dtype  # 16: two integers of a shape


@pytest.mark.parametrize("beside", [False, True])
def test_a_table_beside_the_graph_of_which_rows_are_gathered_stays_there(tmp_path: Path, beside: bool) -> None:
    """Two tables of 4 kB, of which "twice" is read as a whole too."""
    nodes = [
        helper.make_node("Gather", ["rows", "ids"], ["a"]),
        helper.make_node("Gather", ["twice", "ids"], ["b"]),
        helper.make_node("Mul", ["twice", "x"], ["c"]),
        helper.make_node("Gather", ["c", "ids"], ["d"]),
        helper.make_node("Sum", ["a", "b", "d"], ["y"]),
    ]
    inputs = [
        helper.make_tensor_value_info("ids", TensorProto.INT64, (3,)),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, (16,)),
    ]
    tables = [numpy_helper.from_array(np.zeros((64, 16), np.float32), name) for name in ("rows", "twice")]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, (3, 16))
    model = helper.make_model(
        helper.make_graph(nodes, "rows", inputs, [output], tables),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    path = tmp_path / "graph.onnx"
    onnx.save(model, path, save_as_external_data=beside, location="graph.onnx.data", size_threshold=0)
    found = memory(Graph(path), {"ids": (3,), "x": (16,)}, ["y"])
    assert found.tables == (4 if beside else 8) * KB


def test_an_int8_convolution_takes_patches_and_sums(tmp_path: Path) -> None:
    """8 channels of 4 x 4 in, 16 out: kernels of 3 x 3 have patches as rows, of 1 x 1 the image itself."""
    one = [numpy_helper.from_array(np.float32(1), "one")]
    zeros = [
        numpy_helper.from_array(np.zeros((), kind), name) for name, kind in (("zero", np.uint8), ("none", np.int8))
    ]
    found = []
    for side in (3, 1):
        kernels = numpy_helper.from_array(np.zeros((16, 8, side, side), np.int8), "w")
        names = ["x", "one", "zero", "w", "one", "none", "one", "zero"]
        node = helper.make_node("QLinearConv", names, ["y"], pads=[side // 2] * 4)
        x, y = (
            helper.make_tensor_value_info(name, TensorProto.UINT8, (1, channels, 4, 4))
            for name, channels in (("x", 8), ("y", 16))
        )
        graph = helper.make_graph([node], "c", [x], [y], [*one, *zeros, kernels])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(model, tmp_path / "graph.onnx")
        found.append(memory(Graph(tmp_path / "graph.onnx"), {"x": (1, 8, 4, 4)}, ["y"]).activations)
    assert found == [16 * (8 * 9 + 4 * 16), 16 * 4 * 16]
