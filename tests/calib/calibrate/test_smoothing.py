"""Ranges and smoothing per layer: the float product stays the same, and the INT8 product gets nearer to it."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from hart_edge.bundle.manifest import Target
from hart_edge.calib.calibrate.collector import Collector
from hart_edge.calib.calibrate.range_rules import RangeRule
from hart_edge.calib.calibrate.ranges import ActivationRange
from hart_edge.calib.calibrate.smoothing import choose_ranges, find_layers
from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.scheme import Scheme
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import BuildError
from tests.calib.make_graphs import Arrays, conv_model, initializer, linear_model, make_model, run_model, weight

SMOOTHED = [Scheme.U8S8, Scheme.DYNAMIC, Scheme.S8S8]


def outliers(rows: int = 200, seed: int = 0) -> Arrays:
    """Normal values with four channels a hundred times larger, as in transformers."""
    x = np.random.default_rng(seed).standard_normal((rows, 64)).astype(np.float32)
    x[:, [3, 17, 40, 41]] *= 100
    return {"x": x}


def chosen(folder: Path, model: onnx.ModelProto, inputs: Arrays, **given) -> dict[str, ActivationRange]:
    path = folder / "small.onnx"
    onnx.save_model(model, path)
    with Collector({"small": path}, {"small": Scheme.U8S8}, REGISTRY.library(Target.CPU)) as collector:
        collector.run("small", inputs, {})
        collector.end_prompt()
    read = functools.partial(initializer, model)
    return choose_ranges(model, Scheme.U8S8, collector.statistics["small"], read, RangeRule.MIN_MAX, **given)


def error(folder: Path, model: onnx.ModelProto, reduced: onnx.ModelProto, inputs: Arrays) -> float:
    wanted, found = run_model(folder, model, inputs)["y"], run_model(folder, reduced, inputs)["y"]
    return float(np.square(found.astype(np.float32) - wanted).mean() / np.square(wanted).mean())


def one_layer(bias: bool = False, gemm: bool = False) -> onnx.ModelProto:
    """y = x @ w (+ b); with `gemm` as one node, with the weight transposed."""
    weights = [weight("w", 64, 64), *([weight("b", 64, seed=1)] if bias or gemm else [])]
    if gemm:
        return make_model([helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], weights)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h" if bias else "y"])]
    return make_model(nodes + ([helper.make_node("Add", ["b", "h"], ["y"])] if bias else []), weights)


def test_nodes_that_share_an_activation_or_a_weight_are_one_layer() -> None:
    """Nodes that read the same tensor are one layer, and so are nodes that share a weight; convolutions are in none."""
    nodes = [
        helper.make_node("MatMul", ["x", "gate"], ["g"]),
        helper.make_node("MatMul", ["x", "up"], ["u"]),
        helper.make_node("MatMul", ["g", "down"], ["a"]),
        helper.make_node("MatMul", ["u", "down"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("MatMul", ["c", "last"], ["y"]),
    ]
    model = make_model(nodes, [weight(name, 64, 64) for name in ("gate", "up", "down", "last")])
    layers = find_layers(model, Scheme.U8S8)
    assert [layer.activations for layer in layers] == [["x"], ["g", "u"], ["c"]]
    assert [[node.weight for node in layer.nodes] for layer in layers] == [["gate", "up"], ["down", "down"], ["last"]]
    assert find_layers(conv_model(), Scheme.U8S8) == find_layers(model, Scheme.INT8_WEIGHTS) == []


def test_a_later_node_merges_two_layers() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["g"]),
        helper.make_node("MatMul", ["g", "second"], ["h"]),
        helper.make_node("MatMul", ["g", "first"], ["y"]),  # the first layer's weight on the second's activation
    ]
    layers = find_layers(make_model(nodes, [weight("first", 64, 64), weight("second", 64, 64)]), Scheme.U8S8)
    assert [layer.activations for layer in layers] == [["x", "g"]]


def test_outliers_are_moved_into_the_weight(tmp_path: Path) -> None:
    model = one_layer()
    plain = chosen(tmp_path, model, outliers(), alphas=())
    smoothed = chosen(tmp_path, model, outliers())
    assert plain["x"].exponents == ()
    factors = smoothed["x"].factors()
    assert factors is not None and set(np.argsort(factors)[-4:]) == {3, 17, 40, 41}
    assert smoothed["x"].high < plain["x"].high / 4
    unseen = outliers(seed=1)
    errors = {
        scheme: [error(tmp_path, model, apply_scheme(model, scheme, ranges), unseen) for ranges in (plain, smoothed)]
        for scheme in SMOOTHED
    }
    assert errors[Scheme.U8S8][1] < 0.5 * errors[Scheme.U8S8][0] < 0.005
    assert all(after < 1.01 * before for before, after in errors.values())  # symmetric ranges: weights matter more


def test_without_outliers_nothing_is_smoothed(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (200, 64)).astype(np.float32)
    assert chosen(tmp_path, one_layer(), {"x": x})["x"].exponents == ()


@pytest.mark.parametrize("scheme", SMOOTHED)
@pytest.mark.parametrize("make", [one_layer, lambda: one_layer(bias=True), lambda: one_layer(gemm=True), linear_model])
def test_any_factors_preserve_the_product(tmp_path: Path, scheme: Scheme, make) -> None:
    """Even with factors that no search would choose the product stays as near as without, given matching ranges."""
    model = make()
    inputs = {"x": np.random.default_rng(0).uniform(-1, 1, (50, 64)).astype(np.float32)}
    exponents = tuple(int(k) for k in np.random.default_rng(1).integers(-8, 8, 64))
    ranges = {"x": ActivationRange(-2.0, 2.0, exponents), "r": ActivationRange(0.0, 8.0, exponents[::-1])}
    assert error(tmp_path, model, apply_scheme(model, scheme, ranges), inputs) < 3e-3


def test_the_mean_is_corrected_in_the_bias(tmp_path: Path) -> None:
    """With activations far from zero and a weight of few levels, rounding the weight shifts the mean of the output."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((400, 64)) * 0.05 + 1).astype(np.float32)
    for model in (one_layer(bias=True), one_layer(gemm=True)):
        ranges = chosen(tmp_path, model, {"x": x}, alphas=())
        assert len(ranges["x"].means) == 64
        assert ranges["x"].means == pytest.approx(x.mean(0), rel=1e-4)
        without = {"x": ranges["x"]._replace(means=())}
        for scheme in SMOOTHED:
            errors = [error(tmp_path, model, apply_scheme(model, scheme, r), {"x": x}) for r in (without, ranges)]
            assert errors[1] < 0.7 * errors[0], (scheme, errors)


def test_a_constant_activation_names_its_layer(tmp_path: Path) -> None:
    x = np.full((10, 64), 0.5, np.float32)
    with pytest.raises(BuildError, match=r"^x of w: calibration saw nothing but 0\.5, so no range can be told from it"):
        chosen(tmp_path, one_layer(), {"x": x})


def test_a_layer_without_a_bias_gets_none(tmp_path: Path) -> None:
    ranges = {"x": ActivationRange(-1.0, 1.0, (), (0.5,) * 64)}
    nodes = [node.op_type for node in apply_scheme(one_layer(), Scheme.U8S8, ranges).graph.node]
    assert "Add" not in nodes


def test_factors_of_another_model_are_refused() -> None:
    message = r"^small: the factors for x are not those of w; calibrate this model$"
    with pytest.raises(BuildError, match=message):
        apply_scheme(one_layer(), Scheme.U8S8, {"x": ActivationRange(-1.0, 1.0, (0,) * 32)})


def test_excluded_weights_stay_as_they_are(tmp_path: Path) -> None:
    model = linear_model()
    ranges = {"x": ActivationRange(-4.0, 4.0, (3,) * 64), "r": ActivationRange(0.0, 4.0)}
    found = apply_scheme(model, Scheme.U8S8, ranges, excluded={"first"})
    nodes = [node.op_type for node in found.graph.node]
    assert nodes.count("QuantizeLinear") == 1 and "Mul" not in nodes
    assert initializer(found, "first").dtype == np.float32
    assert initializer(found, "second:s8").dtype == np.int8


@pytest.mark.parametrize("scheme", [Scheme.U8S8, Scheme.DYNAMIC])
def test_weight_only_layers_beside_layers_that_multiply_in_int8(tmp_path: Path, scheme: Scheme) -> None:
    model = linear_model()
    inputs = {"x": np.random.default_rng(0).uniform(-1, 1, (50, 64)).astype(np.float32)}
    ranges = {"x": ActivationRange(-2.0, 2.0, (3,) * 64), "r": ActivationRange(0.0, 8.0)}
    mixed = apply_scheme(model, scheme, ranges, weight_only={"first"})
    assert initializer(mixed, "first:s8").dtype == initializer(mixed, "second:s8").dtype == np.int8
    assert [node.op_type for node in mixed.graph.node].count("MatMul") == (2 if scheme is Scheme.U8S8 else 1)
    assert "x:inverse" not in [tensor.name for tensor in mixed.graph.initializer]
    errors = [error(tmp_path, model, each, inputs) for each in (mixed, apply_scheme(model, scheme, ranges))]
    assert errors[0] < errors[1] < 3e-3


def test_weight_only_layers_stay_fp16_in_engines() -> None:
    ranges = {"x": ActivationRange(-2.0, 2.0), "r": ActivationRange(0.0, 8.0)}
    mixed = apply_scheme(linear_model(), Scheme.S8S8, ranges, weight_only={"first"})
    assert initializer(mixed, "first:fp16").dtype == np.float16
    assert initializer(mixed, "second:s8").dtype == np.int8
