"""Schemes written into graphs: errors, the order of nodes, and the kernels that ONNX Runtime chooses for them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hart_edge.bundle.manifest import Precision, Target
from hart_edge.calib.calibrate.collector import Collector
from hart_edge.calib.quantizable_nodes import SMALLEST_WEIGHT
from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.scheme import Scheme
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import BuildError
from tests.calib.make_graphs import (
    INT64,
    conv_model,
    initializer,
    linear_model,
    make_model,
    run_model,
    weight,
    write_model,
)
from tests.calib.rewrite.kernels import optimised

# All but the first have tests of their own (test_int4.py, test_convolutions.py).
OTHERS = (Scheme.FLOAT32, Scheme.INT4_BLOCKS, Scheme.U8S8_CHANNELS, Scheme.S8S8_CHANNELS)
REDUCED = [scheme for scheme in Scheme if scheme not in OTHERS]


def collected(folder: Path, model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    with Collector(write_model(folder, model), {"small": Scheme.U8S8}, REGISTRY.library(Target.CPU)) as collector:
        collector.run("small", inputs, {})
        collector.end_prompt()
    return {name: statistics.extremes() for name, statistics in collector.statistics["small"].items()}


def check(model: onnx.ModelProto) -> onnx.ModelProto:
    """Check topological order, unique names, types and shapes; return the model."""
    onnx.checker.check_model(model, full_check=True)
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(names) == len(set(names))
    used = {name for node in model.graph.node for name in node.input}
    assert set(names) <= used  # no initialiser is left unused
    return model


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


# --- linear layers


def test_float32_is_the_graph_itself() -> None:
    model = linear_model()
    assert apply_scheme(model, Scheme.FLOAT32, {}) is model


@pytest.mark.parametrize("scheme", REDUCED)
def test_the_given_graph_is_not_changed(tmp_path: Path, scheme: Scheme) -> None:
    model = linear_model()
    before = model.SerializeToString()
    check(apply_scheme(model, scheme, {"x": (-3, 3), "r": (0, 3)}))
    assert model.SerializeToString() == before


TOLERANCES = {Precision.FP16: 1e-3, Precision.INT8: 1.5e-2}


@pytest.mark.parametrize(
    ("scheme", "tolerance"),
    [(f, 4e-2 if f in (Scheme.U8S8, Scheme.S8S8) else TOLERANCES[f.precision]) for f in REDUCED],
)
@pytest.mark.parametrize("make", [linear_model, conv_model])
def test_result_is_near(tmp_path: Path, scheme: Scheme, tolerance: float, make) -> None:
    model = make()
    shape = (4, 64) if make is linear_model else (2, 32, 8, 8)
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    reduced = check(apply_scheme(model, scheme, collected(tmp_path, model, {"x": x})))
    expected, found = (run_model(tmp_path, each, {"x": x})["y"] for each in (model, reduced))
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < error <= tolerance


@pytest.mark.parametrize("make", [linear_model, conv_model])
def test_the_largest_codes_do_not_saturate(tmp_path: Path, make) -> None:
    """Sums of two products of 255 x 127 need 17 bits, but saturate at 16 on a CPU without VNNI."""
    model = make()
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            tensor.raw_data = np.ones(tuple(tensor.dims), np.float32).tobytes()
    x = np.ones((4, 64) if make is linear_model else (2, 32, 8, 8), np.float32)
    reduced = apply_scheme(model, Scheme.U8S8, collected(tmp_path, model, {"x": x}))
    expected, found = (run_model(tmp_path, each, {"x": x})["y"] for each in (model, reduced))
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()


def test_weights_only_scheme(tmp_path: Path) -> None:
    """Weights are dequantized by nodes that ONNX Runtime folds when it opens the graph, so a run does no extra work."""
    model = check(apply_scheme(linear_model(), Scheme.INT8_WEIGHTS, {}))
    assert ops(model) == {"MatMul": 2, "Relu": 1, "Cast": 2, "Mul": 2}
    assert initializer(model, "first:s8").dtype == np.int8
    assert initializer(model, "first:scales").shape == (1, 64)
    assert {"first", "first:scale"}.isdisjoint(tensor.name for tensor in model.graph.initializer)
    assert optimised(tmp_path, model) == {"MatMul": 2, "Relu": 1}


def test_large_convolution_weights_stay_int8_in_memory(tmp_path: Path) -> None:
    """A node that ONNX Runtime does not fold dequantizes them at every run; weights of products are always folded."""
    nodes = [helper.make_node("Conv", ["x", "large"], ["h"]), helper.make_node("Conv", ["h", "small"], ["y"])]
    kernels = [weight("large", 1024, 1024, 1, 1), weight("small", 32, 1024, 1, 1, seed=1)]
    model = make_model(nodes, kernels, {"x": ("B", 1024, 2, 2)}, {"y": ("B", 32, 2, 2)})
    reduced = check(apply_scheme(model, Scheme.INT8_WEIGHTS, {}))
    assert ops(reduced) == {"Conv": 2, "DequantizeLinear": 1, "Cast": 1, "Mul": 1}
    assert list(reduced.graph.node[0].input) == ["large:s8", "large:scale", "large:zero"]
    assert optimised(tmp_path, reduced)["DequantizeLinear"] == 1
    x = np.random.default_rng(0).standard_normal((1, 1024, 2, 2)).astype(np.float32)
    expected, found = (run_model(tmp_path, each, {"x": x})["y"] for each in (model, reduced))
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()
    product = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    product = make_model(product, [weight("w", 1024, 1024)], {"x": ("B", 1024)}, {"y": ("B", 1024)})
    assert ops(apply_scheme(product, Scheme.INT8_WEIGHTS, {})) == {"MatMul": 1, "Cast": 1, "Mul": 1}


def test_u8s8_of_linear_layers() -> None:
    model = check(apply_scheme(linear_model(), Scheme.U8S8, {"x": (-2.0, 3.1), "r": (0.0, 5.1)}))
    assert ops(model) == {"MatMul": 2, "Relu": 1, "DequantizeLinear": 4, "QuantizeLinear": 2}
    assert initializer(model, "r:scale") == pytest.approx(0.02) and initializer(model, "r:zero") == 0
    assert initializer(model, "x:scale") == pytest.approx(0.02) and initializer(model, "x:zero") == 100
    assert initializer(model, "x:zero").dtype == np.uint8


def test_gemm_bias_is_int32() -> None:
    """Its scale is the product of the operands' scales, per output channel of a transposed weight."""
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    model = make_model([node], [weight("w", 96, 64), weight("b", 96, seed=1)], outputs={"y": ("B", 96)})
    reduced = check(apply_scheme(model, Scheme.U8S8, {"x": (-1.0, 1.55)}))
    steps, scale = initializer(reduced, "b:x:s32"), initializer(reduced, "b:x:scale")
    assert steps.dtype == np.int32
    expected = np.float32(0.01) * initializer(reduced, "w:scale")
    assert np.allclose(scale, expected, rtol=1e-5)
    assert (np.abs(steps * scale.astype(np.float64) - initializer(model, "b")) <= 0.5001 * scale).all()
    restoring = next(node for node in reduced.graph.node if node.input[0] == "w:s8")
    assert [(attribute.name, attribute.i) for attribute in restoring.attribute] == [("axis", 0)]


def test_a_bias_that_does_not_fit_into_int32_stays_float() -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    model = make_model([node], [weight("w", 64, 64, spread=1e-6), weight("b", 64, spread=1e4)])
    reduced = check(apply_scheme(model, Scheme.U8S8, {"x": (0.0, 1e-4)}))
    gemm = next(node for node in reduced.graph.node if node.op_type == "Gemm")
    assert gemm.input[2] == "b"


def test_shared_weights_and_activations_are_quantised_once(tmp_path: Path) -> None:
    """A weight that two layers share, and an activation that three read, are quantized once."""
    nodes = [
        helper.make_node("MatMul", ["x", "shared"], ["a"]),
        helper.make_node("MatMul", ["x", "shared"], ["b"]),
        helper.make_node("MatMul", ["x", "own"], ["c"]),
        helper.make_node("Sum", ["a", "b", "c", "x"], ["y"]),
    ]
    model = make_model(nodes, [weight("shared", 64, 64), weight("own", 64, 64, seed=1)])
    reduced = check(apply_scheme(model, Scheme.U8S8, {"x": (-1.0, 1.0)}))
    assert ops(reduced) == {"MatMul": 3, "Sum": 1, "QuantizeLinear": 1, "DequantizeLinear": 3}
    assert list(reduced.graph.node[-1].input) == ["a", "b", "c", "x"]  # Sum reads the activation itself
    x = np.random.default_rng(0).uniform(-1, 1, (2, 64)).astype(np.float32)
    expected, found = (run_model(tmp_path, each, {"x": x})["y"] for each in (model, reduced))
    assert np.abs(found - expected).max() <= 0.05


def test_one_bias_for_two_activations() -> None:
    """The scale of a bias depends on the activation, so each activation has its own INT32 bias."""
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Gemm", ["h", "w", "b"], ["y"]),
    ]
    model = make_model(nodes, [weight("w", 64, 64), weight("b", 64)])
    reduced = check(apply_scheme(model, Scheme.U8S8, {"x": (0.0, 1.0), "h": (0.0, 2.0)}))
    scales = [initializer(reduced, f"b:{name}:scale") for name in ("x", "h")]
    assert np.allclose(scales[1], 2 * scales[0])


def test_missing_range_is_named() -> None:
    with pytest.raises(BuildError, match=r"^small: calibration has no range for r; calibrate this model$"):
        apply_scheme(linear_model(), Scheme.U8S8, {"x": (-1.0, 1.0)})


# --- convolutions and embeddings


def test_chain_of_two_convolutions(tmp_path: Path) -> None:
    """The output of the first is quantized once, as its integer kernel does, and the second reads that tensor."""
    model = conv_model()
    x = np.random.default_rng(3).standard_normal((2, 32, 8, 8)).astype(np.float32)
    reduced = check(apply_scheme(model, Scheme.U8S8, collected(tmp_path, model, {"x": x})))
    # activations, weights, biases
    assert ops(reduced) == {"Conv": 2, "QuantizeLinear": 3, "DequantizeLinear": 3 + 2 + 2}
    first, second = (node for node in reduced.graph.node if node.op_type == "Conv")
    assert (first.output[0], second.input[0], second.output[0]) == ("h:raw", "h", "y:raw")
    assert reduced.graph.output[0].name == "y"
    assert optimised(tmp_path, reduced)["QLinearConv"] == 2


def test_embedding_rows(tmp_path: Path) -> None:
    """Every row is INT8 with its own scale; token ids are not quantized."""
    node = helper.make_node("Gather", ["table", "x"], ["y"])
    model = make_model([node], [weight("table", 128, 64)], {"x": ("B",)}, {"y": ("B", 64)}, dtype=INT64)
    for scheme in (Scheme.INT8_WEIGHTS, Scheme.U8S8):
        reduced = check(apply_scheme(model, scheme, {}))
        assert initializer(reduced, "table:s8").dtype == np.int8
        assert "table" not in {tensor.name for tensor in reduced.graph.initializer}
        ids = {"x": np.array([0, 127, 5, 5])}
        expected, found = (run_model(tmp_path, each, ids)["y"] for each in (model, reduced))
        steps = initializer(reduced, "table:scale")[ids["x"], None]
        assert (np.abs(found - expected) <= steps * 0.5001).all()


def test_a_table_that_is_read_twice_and_multiplied_is_quantised_once_per_axis(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["rows"]),
        helper.make_node("Gather", ["table", "x"], ["same"]),
        helper.make_node("Add", ["rows", "same"], ["sum"]),
        helper.make_node("MatMul", ["sum", "table"], ["y"]),
    ]
    model = make_model(nodes, [weight("table", 64, 64)], {"x": ("B",)}, {"y": ("B", 64)}, dtype=INT64)
    reduced = check(apply_scheme(model, Scheme.INT8_WEIGHTS, {}))
    quantized = [tensor.name for tensor in reduced.graph.initializer if tensor.name.endswith(":s8")]
    assert quantized == ["table:s8", "table:axis1:s8"]
    ids = {"x": np.array([3, 63])}
    expected, found = (run_model(tmp_path, each, ids)["y"] for each in (model, reduced))
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_the_codebook_stays_exact() -> None:
    name = "quantizer.codebook.weight"
    node = helper.make_node("Gather", [name, "x"], ["y"])
    model = make_model([node], [weight(name, 128, 64)], {"x": ("B",)}, {"y": ("B", 64)}, dtype=INT64)
    assert initializer(apply_scheme(model, Scheme.INT8_WEIGHTS, {}), name).dtype == np.float32


# --- FP16


def test_only_large_weights_become_fp16() -> None:
    model = linear_model()
    model.graph.initializer.append(weight("small", 64, 63))
    model.graph.node.append(helper.make_node("MatMul", ["y", "small"], ["z"]))
    reduced = apply_scheme(model, Scheme.FLOAT16_WEIGHTS, {})
    assert {tensor.name: tensor.data_type for tensor in reduced.graph.initializer} == {
        "first:fp16": onnx.TensorProto.FLOAT16,
        "second:fp16": onnx.TensorProto.FLOAT16,
        "small": onnx.TensorProto.FLOAT,
    }
    assert SMALLEST_WEIGHT > 64 * 63
    assert [node.op_type for node in reduced.graph.node[:2]] == ["Cast", "Cast"]


@pytest.mark.parametrize("value", [65536.0, -1e6, np.inf, np.nan])
def test_fp16_overflow_is_named(value: float) -> None:
    tensor = weight("first", 64, 64)
    values = np.frombuffer(tensor.raw_data, np.float32).copy()
    values[77] = value
    tensor.raw_data = values.tobytes()
    model = linear_model()
    model.graph.initializer[0].CopyFrom(tensor)
    message = r"^small: weight first exceeds the range of FP16; build this model at fp32$"
    with pytest.raises(BuildError, match=message):
        apply_scheme(model, Scheme.FLOAT16_WEIGHTS, {})


def test_largest_fp16_fits() -> None:
    tensor = weight("first", 64, 64)
    values = np.frombuffer(tensor.raw_data, np.float32).copy()
    values[77] = 65504
    tensor.raw_data = values.tobytes()
    model = linear_model()
    model.graph.initializer[0].CopyFrom(tensor)
    reduced = check(apply_scheme(model, Scheme.FLOAT16_WEIGHTS, {}))
    assert initializer(reduced, "first:fp16").max() == 65504


@pytest.mark.long
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_built_graphs_are_valid(request: pytest.FixtureRequest, precision: str) -> None:
    folder = request.getfixturevalue(f"{precision}_bundle")
    paths = sorted((folder / "graphs").glob("*.onnx"))
    assert len(paths) == 10
    for path in paths:
        check(onnx.load(path))


# --- for TensorRT


def test_s8s8_quantises_the_inputs_of_matrix_products_only() -> None:
    model = check(apply_scheme(linear_model(), Scheme.S8S8, {"x": (-2.0, 3.1), "r": (0.0, 5.1)}))
    assert ops(model) == {"QuantizeLinear": 2, "DequantizeLinear": 4, "MatMul": 2, "Relu": 1, "Cast": 2}
    for tensor in model.graph.initializer:
        if tensor.name.endswith(":zero"):
            assert tensor.data_type == TensorProto.INT8 and not numpy_helper.to_array(tensor).any()
    assert initializer(model, "x:scale") == pytest.approx(3.1 / 127, rel=1e-3)
    convolutions = check(apply_scheme(conv_model(), Scheme.S8S8, {}))
    assert ops(convolutions) == {"Conv": 2, "Cast": 2}  # in FP16; components that use this scheme have no convolutions


def test_weight_only_int8_is_restored_by_dequantize_linear() -> None:
    """TensorRT fuses that node with the product, and supports weight-only INT8 in no other way."""
    model = check(apply_scheme(linear_model(), Scheme.INT8_WEIGHTS_FLOAT16, {}))
    assert ops(model) == {"DequantizeLinear": 2, "MatMul": 2, "Relu": 1, "Cast": 4}
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert types["first:s8"] == TensorProto.INT8 and types["first:scale:fp16"] == TensorProto.FLOAT16


def test_weights_that_tensorrt_rtx_cannot_build_stay_float16() -> None:
    model = linear_model()
    for tensor in model.graph.initializer:
        tensor.name = f"residual.final.{tensor.name}"
    for node in model.graph.node:
        if node.op_type == "MatMul":
            node.input[1] = f"residual.final.{node.input[1]}"
    assert "DequantizeLinear" not in ops(apply_scheme(model, Scheme.INT8_WEIGHTS_FLOAT16, {}))
    ranges = {"x": (-1.0, 1.0), "r": (0.0, 1.0)}
    assert ops(apply_scheme(model, Scheme.S8S8, ranges))["DequantizeLinear"] == 4
