"""A smaller KV cache with float32 arithmetic, on a graph with every kind of node that touches a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hart_edge.bundle.manifest import Target
from hart_edge.calib.rewrite.kv_cache import KEY_STEPS, from_cache, in_cache, shrink_cache
from hart_edge.calib.scheme import CacheForm
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import BuildError
from tests.calib.make_graphs import linear_model

HEADS, WIDTH = 2, 8
RANDOM = np.random.default_rng(0)


def unit(*shape: int) -> np.ndarray:
    vectors = RANDOM.standard_normal(shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


PAST_KEY, NEW_KEY = (unit(tokens, 1, HEADS, WIDTH) for tokens in (3, 5))
PAST_VALUE, NEW_VALUE = (RANDOM.standard_normal((tokens, 1, HEADS, WIDTH)).astype(np.float32) for tokens in (3, 5))
QUERIES = 10 * unit(1, HEADS, 5, WIDTH)
FEEDS = {
    "past_key.0": PAST_KEY,
    "past_value.0": PAST_VALUE,
    "k": NEW_KEY,
    "v": NEW_VALUE,
    "q": QUERIES,
}


def cache_model(reader: str = "MatMul") -> onnx.ModelProto:
    """The operations of a block on keys and values, and of the graph that makes the first key. reader: of the keys."""
    past, new, heads = (["N", 1, HEADS, WIDTH], ["n", 1, HEADS, WIDTH], [1, HEADS, "n", WIDTH])
    inputs = {"past_key.0": past, "past_value.0": past, "k": new, "v": new, "q": heads}
    outputs = {"key.0": new, "value.0": new, "null_key.0": new}
    outputs |= {"scores": [1, HEADS, "n", "N + n"], "values": ["N + n", 1, HEADS, WIDTH]}
    nodes = [
        helper.make_node("Identity", ["k"], ["key.0"], "project"),
        helper.make_node("Identity", ["v"], ["value.0"], "project values"),
        helper.make_node("Concat", ["past_key.0", "key.0"], ["keys"], "join", axis=0),
        helper.make_node("Concat", ["past_value.0", "value.0"], ["values"], "join values", axis=0),
        helper.make_node("Shape", ["past_key.0"], ["tokens"], "count"),
        helper.make_node("Transpose", ["keys"], ["by_head"], "by head", perm=[1, 2, 0, 3]),
        helper.make_node("Transpose", ["by_head"], ["across"], "across", perm=[0, 1, 3, 2]),
        helper.make_node(reader, ["q", "across"], ["scores"], "multiply"),
        helper.make_node("Neg", ["k"], ["null_key.0"], "first"),
    ]
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    made.append(helper.make_tensor_value_info("tokens", TensorProto.INT64, [4]))
    graph = helper.make_graph(nodes, "transformer", info, made)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, path: Path, form: CacheForm = CacheForm.FLOAT32) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)
    feeds = {
        name: in_cache(array, form.dtype(name).value) if name.startswith("past_") else array
        for name, array in FEEDS.items()
    }
    return REGISTRY.library(Target.CPU).open(path).run(feeds)


def test_fp16_is_what_attention_reads(tmp_path: Path) -> None:
    model = cache_model()
    shrink_cache(model, CacheForm.FLOAT16)
    found = run(model, tmp_path / "fp16.onnx", CacheForm.FLOAT16)
    for name, new in (("key.0", NEW_KEY), ("value.0", NEW_VALUE), ("null_key.0", -NEW_KEY)):
        assert np.array_equal(found[name], new.astype(np.float16))
    keys, values = (
        np.concatenate(pair).astype(np.float16).astype(np.float32)
        for pair in ((PAST_KEY, NEW_KEY), (PAST_VALUE, NEW_VALUE))
    )
    assert np.array_equal(found["values"], values)
    assert np.allclose(found["scores"], QUERIES @ keys.transpose(1, 2, 3, 0), atol=1e-6)
    assert found["tokens"].tolist() == [3, 1, HEADS, WIDTH]
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)  # reports of engines name nodes


def test_int8_keys_are_multiplied_as_integers(tmp_path: Path) -> None:
    model = cache_model()
    expected = run(model, tmp_path / "float32.onnx")
    shrink_cache(model, CacheForm.INT8_KEYS)
    found = run(model, tmp_path / "int8.onnx", CacheForm.INT8_KEYS)
    assert found["key.0"].dtype == found["null_key.0"].dtype == np.int8 and found["value.0"].dtype == np.float16
    assert np.array_equal(found["key.0"], np.rint(NEW_KEY * KEY_STEPS))
    assert [node.op_type for node in model.graph.node].count("MatMulInteger") == 1
    error = found["scores"] - expected["scores"]
    # Of a score of queries of length 10: half a step in each of 8 channels of the key, and of the queries.
    assert np.abs(error).max() < 10 * np.sqrt(WIDTH) * (0.5 / KEY_STEPS + 0.5 * np.abs(QUERIES).max() * 2 / 255 / 10)
    assert np.abs(error).mean() > 0  # it is another product


def test_the_products_of_int8_keys_fit_into_16_bits() -> None:
    """What processors without VNNI add up: two products of neighbouring channels, of which a unit vector is made."""
    assert 255 * np.sqrt(2) * KEY_STEPS + 255 < 2**15


def test_keys_as_a_reference_has_them() -> None:
    held = in_cache(NEW_KEY, "int8")
    assert np.abs(from_cache(held, NEW_KEY) - NEW_KEY).max() <= 0.5 / KEY_STEPS + 1e-6
    assert in_cache(held, "int8") is held
    assert in_cache(NEW_VALUE, "float32") is NEW_VALUE
    indices = np.arange(3, dtype=np.int64)
    assert np.array_equal(from_cache(indices.astype(np.int8), indices), indices)  # no keys


def test_keys_that_something_else_reads_stay_out() -> None:
    with pytest.raises(BuildError, match=r"^transformer: past_key\.0 is read by Add, expected MatMul"):
        shrink_cache(cache_model("Add"), CacheForm.INT8_KEYS)


@pytest.mark.parametrize("form", list(CacheForm))
def test_a_graph_without_a_cache_stays(form: CacheForm) -> None:
    model = linear_model()
    before = model.SerializeToString()
    shrink_cache(model, form)
    assert model.SerializeToString() == before


def test_float32_changes_nothing() -> None:
    model = cache_model()
    before = model.SerializeToString()
    shrink_cache(model, CacheForm.FLOAT32)
    assert model.SerializeToString() == before
