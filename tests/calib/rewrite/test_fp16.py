"""FP16 tensors in a graph: which tensors become FP16, where casts stand, and that values stay near."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hart_edge.calib.rewrite.fp16 import tensors_in_fp16, to_fp16
from hart_edge.errors import BuildError
from tests.calib.make_graphs import INT64, initializer, make_model, run_model, weight

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16


def in_fp16(model: onnx.ModelProto, **options: object) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    to_fp16(copy, Path(), **options)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def block() -> onnx.ModelProto:
    """A residual block: y = x + (norm(x) @ up * sigmoid) @ down, with the usual epsilon, and a softmax."""
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "last"], ["mean"]),
        helper.make_node("Add", ["mean", "epsilon"], ["safe"]),
        helper.make_node("Sqrt", ["safe"], ["root"]),
        helper.make_node("Div", ["x", "root"], ["normed"]),
        helper.make_node("MatMul", ["normed", "up"], ["h"]),
        helper.make_node("Sigmoid", ["h"], ["gate"]),
        helper.make_node("Mul", ["h", "gate"], ["silu"]),
        helper.make_node("Softmax", ["silu"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "down"], ["delta"]),
        helper.make_node("Add", ["x", "delta"], ["y"]),
    ]
    constants = [
        weight("up", 64, 64),
        weight("down", 64, 64, seed=1),
        numpy_helper.from_array(np.array([-1], np.int64), "last"),
        numpy_helper.from_array(np.float32(1e-6), "epsilon"),
    ]
    return make_model(nodes, constants)


def test_products_are_fp16_and_statistics_are_not() -> None:
    found = types(in_fp16(block()))
    assert {found[name] for name in ("h", "gate", "silu", "delta")} == {FLOAT16}
    assert {found[name] for name in ("squares", "mean", "safe", "root", "normed", "shares", "x", "y")} == {FLOAT}
    assert set(tensors_in_fp16(in_fp16(block()))) == {"h", "gate", "silu", "delta", "normed", "shares"}


def test_casts_lie_between_types_only() -> None:
    model = in_fp16(block())
    casts = [(node.input[0], node.output[0]) for node in model.graph.node if node.op_type == "Cast"]
    assert sorted(casts) == [
        ("delta", "delta:fp32"),
        ("normed", "normed:fp16"),
        ("shares", "shares:fp16"),
        ("silu", "silu:fp32"),
    ]
    assert all(node.name for node in model.graph.node if node.op_type == "Cast")  # reports of engines name nodes
    assert {tensor.name: tensor.data_type for tensor in model.graph.initializer} == {
        "up:fp16": FLOAT16,
        "down:fp16": FLOAT16,
        "last": INT64,
        "epsilon": FLOAT,
    }


def test_numbers_stay_near(tmp_path: Path) -> None:
    x = np.random.default_rng(3).standard_normal((4, 64)).astype(np.float32)
    expected, found = (run_model(tmp_path, each, {"x": x})["y"] for each in (block(), in_fp16(block())))
    assert 0 < np.abs(found - expected).max() < 2e-3


def test_the_cache_joins_in_fp16(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["x", "turn"], ["key.0"]),
        helper.make_node("Concat", ["past_key.0", "key.0"], ["keys"], axis=0),
        helper.make_node("Neg", ["keys"], ["y"]),
    ]
    inputs = {"x": ("B", 64), "past_key.0": ("N", 64)}
    model = make_model(nodes, [weight("turn", 64)], inputs, {"key.0": ("B", 64), "y": ("M", 64)})
    found = in_fp16(model)
    assert types(found) | {"x": FLOAT} == types(found)
    assert types(found)["past_key.0"] == types(found)["key.0"] == types(found)["keys"] == FLOAT16
    feeds = {"x": np.ones((2, 64), np.float32), "past_key.0": np.zeros((3, 64), np.float16)}
    result = run_model(tmp_path, found, feeds)
    assert result["key.0"].dtype == np.float16 and result["y"].shape == (5, 64)
    assert (result["key.0"] == initializer(model, "turn").astype(np.float16)).all()
    assert np.allclose(result["y"][3:], -result["key.0"], rtol=1e-3)


def test_tensors_after_an_exact_one_stay_float32() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["latent"]),
        helper.make_node("MatMul", ["latent", "second"], ["distance"]),
        helper.make_node("Neg", ["distance"], ["y"]),
    ]
    constants = [weight("first", 64, 64), weight("second", 64, 64, seed=1)]
    model = make_model(nodes, constants, outputs={"latent": ("B", 64), "y": ("B", 64)})
    found = in_fp16(model, exact_after="latent")
    assert types(found)["latent:fp16"] == FLOAT16 and types(found)["latent"] == FLOAT
    assert types(found)["distance"] == types(found)["y"] == FLOAT
    assert {tensor.name for tensor in found.graph.initializer} == {"first:fp16", "second"}
    throughout = in_fp16(model)
    assert types(throughout)["distance"] == FLOAT16


def test_tensors_with_large_values_stay_float32() -> None:
    found = types(in_fp16(block(), wide=frozenset({"h"})))
    assert found["h"] == found["gate"] == found["silu"] == FLOAT and found["delta"] == FLOAT16


def test_constants_that_fp16_lacks_keep_their_node_in_float32() -> None:
    """A mask of the lowest float, and an epsilon that FP16 would make zero."""
    for value in (-3.4e38, 1e-8):
        nodes = [
            helper.make_node("MatMul", ["x", "first"], ["h"]),
            helper.make_node("Add", ["h", "value"], ["y"]),
        ]
        model = make_model(nodes, [weight("first", 64, 64), numpy_helper.from_array(np.float32(value), "value")])
        casts = [node.output[0] for node in in_fp16(model).graph.node if node.op_type == "Cast"]
        assert casts == ["x:fp16", "h:fp32"]


def test_cast_like_between_floats_is_removed() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node("CastLike", ["factor", "h"], ["like"]),
        helper.make_node("Mul", ["h", "like"], ["y"]),
    ]
    found = in_fp16(make_model(nodes, [weight("first", 64, 64), weight("factor", 64, seed=1)]))
    assert Counter(node.op_type for node in found.graph.node) == {"Cast": 2, "MatMul": 1, "Mul": 1}
    assert {tensor.name for tensor in found.graph.initializer} == {"first:fp16", "factor:fp16"}


def test_a_table_of_rows_is_a_weight() -> None:
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    model = make_model(nodes, [weight("table", 128, 64)], {"x": ("B",)}, {"y": ("B", 64)}, dtype=INT64)
    found = in_fp16(model)
    assert [node.op_type for node in found.graph.node] == ["Gather", "Cast"]
    assert found.graph.initializer[0].data_type == FLOAT16


@pytest.mark.parametrize("value", [1e5, float("nan"), float("inf")])
def test_a_weight_beyond_fp16_is_refused(value: float) -> None:
    model = block()
    table = np.array(initializer(model, "up"))
    table[3, 5] = value
    next(t for t in model.graph.initializer if t.name == "up").CopyFrom(numpy_helper.from_array(table, "up"))
    with pytest.raises(BuildError, match=r"^small: weight up exceeds the range of FP16; build this model at fp32$"):
        in_fp16(model)
