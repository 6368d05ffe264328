"""The layer that causes most of an error is found in every scheme, and the search leaves no files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hart_edge.bundle.manifest import Target
from hart_edge.calib.graph_files import save_graph
from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.scheme import Scheme
from hart_edge.engines.registry import REGISTRY
from hart_edge.export.parity.worst_layer import worst_layer
from tests.calib.make_graphs import make_model, weight

LIBRARY = REGISTRY.library(Target.CPU)
NAMES = ("first", "second", "third")


def chain() -> onnx.ModelProto:
    """Three products with biases and ReLUs, 64 channels each; the weights have the names that a trace gives them."""
    nodes, initializers, x = [], [], "x"
    for seed, name in enumerate(NAMES):
        nodes += [
            helper.make_node("MatMul", [x, f"{name}.weight.T"], [f"{name}.product"]),
            helper.make_node("Add", [f"{name}.product", f"{name}.bias"], [f"{name}.sum"]),
            helper.make_node("Relu", [f"{name}.sum"], [f"{name}.out" if name != NAMES[-1] else "y"]),
        ]
        initializers += [weight(f"{name}.weight.T", 64, 64, seed=seed), weight(f"{name}.bias", 64, seed=9 + seed)]
        x = f"{name}.out"
    return make_model(nodes, initializers)


def alter(model: onnx.ModelProto, name: str, by: float) -> None:
    """Add noise to an initializer of any type."""
    (tensor,) = (each for each in model.graph.initializer if each.name == name)
    value = numpy_helper.to_array(tensor)
    noise = np.random.default_rng(2).standard_normal(value.shape) * by
    tensor.CopyFrom(numpy_helper.from_array((value + noise).astype(value.dtype), name))


@pytest.fixture
def feeds() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((16, 64)).astype(np.float32)}


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("altered", [f"{name}.{kind}" for name in NAMES for kind in ("weight.T", "bias")])
def test_an_altered_layer_is_named(tmp_path: Path, feeds: dict, altered: str, beside: bool) -> None:
    for folder, by in (("traced", 0.0), ("final", 0.02)):
        (tmp_path / folder).mkdir()
        model = chain()
        alter(model, altered, by)
        save_graph(model, tmp_path / folder / "small.onnx", tmp_path, 1 if beside else 2**30)
    before = sorted(tmp_path.rglob("*"))
    paths = (tmp_path / "traced" / "small.onnx", tmp_path / "final" / "small.onnx")
    worst = worst_layer(*paths, feeds, feeds, LIBRARY)
    assert worst is not None and worst.layer == altered.removesuffix(".T")
    assert worst.before == pytest.approx(0, abs=1e-6) and 0.01 < worst.after < 0.3
    assert sorted(tmp_path.rglob("*")) == before and len(before) == (6 if beside else 4)


@pytest.mark.parametrize(("scheme", "suffix"), [(Scheme.FLOAT16, ":fp16"), (Scheme.FLOAT16_WEIGHTS, ":fp16")])
def test_tensors_of_other_types_are_compared(tmp_path: Path, feeds: dict, scheme: Scheme, suffix: str) -> None:
    model = apply_scheme(chain(), scheme, {})
    alter(model, f"second.weight.T{suffix}", 0.05)
    for name, each in (("traced", chain()), ("final", model)):
        onnx.save_model(each, tmp_path / f"{name}.onnx")
    paths = (tmp_path / "traced.onnx", tmp_path / "final.onnx")
    worst = worst_layer(*paths, feeds, feeds, LIBRARY, at_once=2)  # three runs for six layers
    assert worst is not None and worst.layer == "second.weight"
    assert worst.before < 2e-3 < 0.1 < worst.after


def test_int8_layers_are_compared(tmp_path: Path, feeds: dict) -> None:
    """A range clips the input of one layer."""
    onnx.save_model(chain(), tmp_path / "traced.onnx")
    ranges = {"x": (-4.0, 4.0), "first.out": (0.0, 4.0), "second.out": (0.0, 0.1)}
    onnx.save_model(apply_scheme(chain(), Scheme.U8S8, ranges), tmp_path / "final.onnx")
    worst = worst_layer(tmp_path / "traced.onnx", tmp_path / "final.onnx", feeds, feeds, LIBRARY)
    assert worst is not None and worst.layer == "third.weight"
    assert worst.before < 0.05 < 0.3 < worst.after


def test_a_layer_that_overflows_is_the_worst(tmp_path: Path, feeds: dict) -> None:
    model = chain()
    alter(model, "second.bias", np.inf)
    for name, each in (("traced", chain()), ("final", model)):
        onnx.save_model(each, tmp_path / f"{name}.onnx")
    worst = worst_layer(tmp_path / "traced.onnx", tmp_path / "final.onnx", feeds, feeds, LIBRARY)
    assert worst is not None and (worst.layer, worst.after) == ("second.bias", np.inf)


def test_graphs_without_a_common_layer(tmp_path: Path, feeds: dict) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])]
    other = [helper.make_node("MatMul", ["x", "w"], ["k"]), helper.make_node("Relu", ["k"], ["y"])]
    for name, each in (("traced", nodes), ("final", other)):
        onnx.save_model(make_model(each, [weight("w", 64, 64)]), tmp_path / f"{name}.onnx")
    assert worst_layer(tmp_path / "traced.onnx", tmp_path / "final.onnx", feeds, feeds, LIBRARY) is None


def test_where_no_layer_adds_an_error_none_is_named(tmp_path: Path, feeds: dict) -> None:
    """As at fp32, where the final graph is the traced one, so that its error is older than both."""
    for name in ("traced", "final"):
        onnx.save_model(chain(), tmp_path / f"{name}.onnx")
    assert worst_layer(tmp_path / "traced.onnx", tmp_path / "final.onnx", feeds, feeds, LIBRARY) is None
