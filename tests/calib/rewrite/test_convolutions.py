"""Convolutions with ranges per channel: errors, upsampling in four parts, what stays in float32, refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hart_edge.bundle.manifest import Target
from hart_edge.calib.calibrate.channel_ranges import channel_ranges
from hart_edge.calib.calibrate.collector import Collector
from hart_edge.calib.calibrate.ranges import ActivationRange
from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.rewrite.convolutions import PLACES, at_place
from hart_edge.calib.scheme import Scheme
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import BuildError
from hart_edge.export.tensorrt_lint.lint import require_clean
from tests.calib.make_graphs import conv_model, initializer, make_model, run_model, weight, write_model

CHANNELS = 32
# Magnitudes of channels, from 1/32 to 32: by one range for all, the small ones would be rounded to nothing.
UNEVEN = np.exp2(np.linspace(-5, 5, CHANNELS)).astype(np.float32)


def upsampling_model() -> onnx.ModelProto:
    """y = conv(upsampled x), as in a decoder."""
    resize = helper.make_node(
        "Resize",
        ["x", "", "twice"],
        ["wide"],
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )
    twice = helper.make_node("Constant", [], ["twice"], value=numpy_helper.from_array(np.float32([1, 1, 2, 2])))
    conv = helper.make_node("Conv", ["wide", "first", "bias"], ["y"], pads=[1, 1, 1, 1])
    shapes = {"x": ("B", CHANNELS, 4, 4)}, {"y": ("B", CHANNELS, 8, 8)}
    initializers = [weight("first", CHANNELS, CHANNELS, 3, 3), weight("bias", CHANNELS, seed=1)]
    return make_model([twice, resize, conv], initializers, *shapes)


def uneven(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same with channels of very different magnitudes."""
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 4:
            value = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(value * UNEVEN[:, None, None, None], tensor.name))
    return model


def pictures(side: int, seed: int) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).standard_normal((2, CHANNELS, side, side)).astype(np.float32)
    return values * UNEVEN[:, None, None]


def ranges_of(folder: Path, model: onnx.ModelProto, inputs: NDArray[np.float32]) -> dict[str, ActivationRange]:
    scheme = Scheme.U8S8_CHANNELS
    with Collector(write_model(folder, model), {"small": scheme}, REGISTRY.library(Target.CPU)) as collector:
        collector.run("small", {"x": inputs}, {})
        collector.end_prompt()
    return channel_ranges(model, scheme, collector.statistics["small"], lambda name: initializer(model, name))


def rewritten(
    folder: Path,
    model: onnx.ModelProto,
    x: NDArray[np.float32],
    excluded: Collection[str] = (),
    scheme: Scheme = Scheme.U8S8_CHANNELS,
) -> onnx.ModelProto:
    made = apply_scheme(model, scheme, ranges_of(folder, model, x), excluded=excluded)
    onnx.checker.check_model(made, full_check=True)
    return made


def ops(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("scheme", [Scheme.U8S8_CHANNELS, Scheme.S8S8_CHANNELS])
@pytest.mark.parametrize(("make", "side"), [(conv_model, 8), (upsampling_model, 4)])
def test_every_channel_is_near(tmp_path: Path, make, side: int, scheme: Scheme) -> None:
    """Each within 5 % of its own largest value, whatever the others' are."""
    model, x = uneven(make()), pictures(side, 3)
    made = rewritten(tmp_path, model, x, scheme=scheme)
    expected, found = (run_model(tmp_path, each, {"x": x})["y"] for each in (model, made))
    error = np.abs(found - expected).max((0, 2, 3)) / np.abs(expected).max((0, 2, 3))
    assert 0 < error.max() < 0.05


def test_nodes_of_a_convolution(tmp_path: Path) -> None:
    made = rewritten(tmp_path, conv_model(), pictures(8, 3))
    assert ops(made) == {"QuantizeLinear": 2, "QLinearConv": 2, "DequantizeLinear": 2}
    assert initializer(made, "first:s8").dtype == np.int8
    assert {"first", "bias.first"}.isdisjoint(tensor.name for tensor in made.graph.initializer)


def test_convolutions_that_tensorrt_takes(tmp_path: Path) -> None:
    """One scale an activation, one an output channel of the weights, zero points of 0, and no result is quantised."""
    model, x = uneven(conv_model()), pictures(8, 3)
    for node in model.graph.node:
        node.name = node.output[0]  # as tracing does
    made = rewritten(tmp_path, model, x, scheme=Scheme.S8S8_CHANNELS)
    path = tmp_path / "made.onnx"
    onnx.save_model(made, path)
    require_clean(path)
    assert ops(made) == {"Mul": 2, "QuantizeLinear": 2, "DequantizeLinear": 4, "Conv": 2, "Cast": 1}
    assert initializer(made, "x:scale").shape == () and initializer(made, "second:scale:fp16").shape == (CHANNELS,)
    assert initializer(made, "x:zero").dtype == initializer(made, "first:s8").dtype == np.int8
    assert not any(initializer(made, name).any() for name in ("x:zero", "h:zero", "first:zero", "second:zero"))
    factors = ranges_of(tmp_path, model, x)["x"].factors()
    assert factors is not None
    assert initializer(made, "x:inverse").ravel() == pytest.approx(1 / factors, rel=1e-6)


def test_upsampling_is_gone(tmp_path: Path) -> None:
    made = rewritten(tmp_path, upsampling_model(), pictures(4, 3))
    assert ops(made) == {
        "QuantizeLinear": 1,
        "QLinearConv": 4,
        "Concat": 1,
        "DepthToSpace": 1,
        "DequantizeLinear": 1,
    }


def test_upsampling_that_others_read_stays(tmp_path: Path) -> None:
    model = upsampling_model()
    model.graph.node.append(helper.make_node("Identity", ["wide"], ["seen"]))
    model.graph.output.append(helper.make_tensor_value_info("seen", 1, ("B", CHANNELS, 8, 8)))
    made = rewritten(tmp_path, model, pictures(4, 3))
    assert ops(made)["Resize"] == ops(made)["QLinearConv"] == 1


def test_four_small_kernels_are_the_large_one_behind_upsampling() -> None:
    random = np.random.default_rng(0)
    kernel = random.standard_normal((5, 3, 3, 3)).astype(np.float32)
    x = torch.from_numpy(random.standard_normal((1, 3, 6, 7)).astype(np.float32))
    expected = F.conv2d(F.interpolate(x, scale_factor=2), torch.from_numpy(kernel), padding=1)
    for row, column in PLACES:
        padded = F.pad(x, (1 - column, column, 1 - row, row))
        found = F.conv2d(padded, torch.from_numpy(at_place(kernel, row, column)))
        torch.testing.assert_close(found, expected[:, :, row::2, column::2])


def test_excluded_and_shared_weights_stay_in_float32(tmp_path: Path) -> None:
    x = pictures(8, 3)
    assert ops(rewritten(tmp_path, conv_model(), x, excluded={"first"})) == {
        "Conv": 1,
        "QuantizeLinear": 1,
        "QLinearConv": 1,
        "DequantizeLinear": 1,
    }
    shared = conv_model()
    shared.graph.node[1].input[1] = "first"
    assert ops(rewritten(tmp_path, shared, x))["QLinearConv"] == 0
    assert ops(rewritten(tmp_path, shared, x, scheme=Scheme.S8S8_CHANNELS))["QuantizeLinear"] == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, r"^small: calibration has no range for x; calibrate this model$"),
        ({"x": ActivationRange(-1, 1), "h": ActivationRange(-1, 1)}, "no range per channel for h; calibrate"),
        ({"x": ActivationRange(-1, 1, (0, 8))}, "2 factors for x of 32 channels; calibrate this model$"),
    ],
)
def test_ranges_of_another_model(changed: dict[str, ActivationRange], message: str) -> None:
    with pytest.raises(BuildError, match=message):
        apply_scheme(conv_model(), Scheme.U8S8_CHANNELS, changed)


def test_a_bias_that_int32_cannot_hold(tmp_path: Path) -> None:
    model, x = conv_model(), pictures(8, 3)
    ranges = ranges_of(tmp_path, model, x)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "bias.first")
    bias.CopyFrom(numpy_helper.from_array(np.full(CHANNELS, 1e9, np.float32), "bias.first"))
    with pytest.raises(BuildError, match=r"the bias of first is beyond INT32; --exclude first$"):
        apply_scheme(model, Scheme.U8S8_CHANNELS, ranges)


def test_ranges_are_the_extremes_of_all_prompts(tmp_path: Path) -> None:
    """A rule that averages over prompts would clip what one of them reached."""
    model, scheme = conv_model(), Scheme.U8S8_CHANNELS
    with Collector(write_model(tmp_path, model), {"small": scheme}, REGISTRY.library(Target.CPU)) as collector:
        for factor in (1.0, 10.0):
            collector.run("small", {"x": pictures(8, 3) * np.float32(factor)}, {})
            collector.end_prompt()
    found = channel_ranges(model, scheme, collector.statistics["small"], lambda name: initializer(model, name))
    x = 10 * pictures(8, 3)
    factors = found["x"].factors()
    assert factors is not None
    assert found["x"].high == pytest.approx(float((x.max((0, 2, 3)) / factors).max()), rel=1e-6)
    assert (found["x"].lows, len(found["h"].lows), len(found["y"].highs)) == ((), CHANNELS, CHANNELS)
    assert found["h"].exponents and not found["y"].exponents  # h is read by the second, y by none
