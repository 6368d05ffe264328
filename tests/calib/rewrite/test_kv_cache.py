"""An FP16 KV cache with float32 arithmetic, on a graph with every kind of node that touches a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from hart_edge.bundle.manifest import Target
from hart_edge.calib.rewrite.kv_cache import cache_to_fp16
from hart_edge.engines.registry import REGISTRY
from tests.calib.make_graphs import linear_model

RANDOM = np.random.default_rng(0)
PAST, NEW = (RANDOM.standard_normal((tokens, 1, 2, 4)).astype(np.float32) for tokens in (3, 5))


def cache_model() -> onnx.ModelProto:
    """The operations of a block on its keys, and of the graph that makes the first key."""
    past, new, joined = ([tokens, 1, 2, 4] for tokens in ("N", "n", "N + n"))
    shapes = {"past_key.0": past, "new": new, "key.0": new, "null_key.0": new, "y": joined}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    tokens = helper.make_tensor_value_info("tokens", TensorProto.INT64, [4])
    nodes = [
        helper.make_node("Mul", ["new", "new"], ["key.0"], "project"),
        helper.make_node("Concat", ["past_key.0", "key.0"], ["keys"], "join", axis=0),
        helper.make_node("Shape", ["past_key.0"], ["tokens"], "count"),
        helper.make_node("Add", ["keys", "keys"], ["y"], "attend"),
        helper.make_node("Neg", ["new"], ["null_key.0"], "first"),
    ]
    graph = helper.make_graph(nodes, "transformer", list(values.values())[:2], [*list(values.values())[2:], tokens])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, path: Path, past: np.ndarray) -> dict[str, np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)
    return REGISTRY.library(Target.CPU).open(path).run({"past_key.0": past, "new": NEW})


def test_only_the_cache_is_rounded(tmp_path: Path) -> None:
    model = cache_model()
    expected = run(model, tmp_path / "float32.onnx", PAST)
    cache_to_fp16(model)
    found = run(model, tmp_path / "fp16.onnx", PAST.astype(np.float16))
    for name in ("key.0", "null_key.0"):
        assert np.array_equal(found[name], expected[name].astype(np.float16))
    assert found["y"].dtype == np.float32
    assert np.array_equal(found["y"][:3], 2 * PAST.astype(np.float16).astype(np.float32))
    assert np.array_equal(found["y"][3:], 2 * expected["key.0"])  # new keys are rounded only where they leave the graph
    assert found["tokens"].tolist() == [3, 1, 2, 4]
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)  # reports of engines name nodes


def test_a_graph_without_a_cache_stays() -> None:
    model = linear_model()
    before = model.SerializeToString()
    cache_to_fp16(model)
    assert model.SerializeToString() == before
