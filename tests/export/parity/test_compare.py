"""What counts as an error of a graph, and the message of a build for a graph with a large one."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hart_edge.bundle.manifest import ComponentName, Dtype, Precision, TensorSpec
from hart_edge.calib.scheme import Scheme
from hart_edge.errors import BuildError, ParityError
from hart_edge.export.chain import build
from hart_edge.export.graph_module import GraphModule
from hart_edge.export.options import BuildOptions
from hart_edge.export.parity.compare import (
    DIFFERING_CHOICES,
    TOLERANCE,
    GraphError,
    ParityCheck,
    compare,
    require_observed,
    tolerance_of,
)
from hart_edge.export.tools import Tools
from tests.export.small_checkpoint import CHECKPOINT


@pytest.mark.parametrize(
    ("graph", "weight", "tensor"),
    [
        ("transformer", "transformer.blocks.1.mlp.down", "hidden"),
        ("decoder", "decoder.conv_out.weight", "image"),
        ("encoder", "quant_conv.weight", "latent"),
        ("residual", "residual.final.linear.bias", "residual"),
    ],
)
def test_altered_weight_fails_the_build(tools: Tools, tmp_path: Path, graph: str, weight: str, tensor: str) -> None:
    """A weight differs between checkpoint and graph: the proof of weights or the parity gate names the graph, and no
    files are left."""

    def trace_altered(module: GraphModule, path: Path) -> None:
        tools.trace(module, path)
        if module.name == graph:
            model = onnx.load(path)
            found = [each for each in model.graph.initializer if weight in each.name]
            assert found, [each.name for each in model.graph.initializer]
            value = numpy_helper.to_array(found[0]) + np.float32(0.05)
            found[0].CopyFrom(numpy_helper.from_array(value, found[0].name))
            onnx.save_model(model, path)

    message = (
        rf"^graph {graph}, tensor \S*{re.escape(weight)}\S*: expected the checkpoint's numbers, found others"
        rf"|^graph {graph}(, scale \d)?, tensor (null_)?({tensor}|x): error \S+ against the reference, tolerance"
    )
    with pytest.raises(BuildError, match=message):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle", Precision.FP32), tools=replace(tools, trace=trace_altered))
    assert list(tmp_path.iterdir()) == []


def test_relative_to_the_largest_magnitude() -> None:
    expected = {"hidden": np.array([[100.0, 1.0]], np.float32), "other": np.array([0.5], np.float32)}
    found = {"hidden": np.array([[100.0, 1.5]], np.float32), "other": np.array([0.49], np.float32)}
    worst = compare("transformer", expected, found)
    assert worst.tensor == "other" and worst.error == pytest.approx(0.01, rel=1e-4)  # 0.5 / 100 is less
    assert compare("transformer", expected, expected) == GraphError(0.0, "hidden")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("both", [False, True])
def test_nan_and_infinity_are_infinite_errors(value: float, both: bool) -> None:
    """Even where the reference has them too, since no picture may be made from them."""
    good, bad = np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)
    bad[1, 1] = value
    expected = {"x": good, "hidden": bad if both else good}
    assert compare("transformer", expected, {"x": good, "hidden": bad}) == GraphError(math.inf, "hidden")
    assert compare("transformer", {"x": good, "hidden": bad}, {"x": good, "hidden": good}).error == math.inf


def test_another_shape_is_an_infinite_error() -> None:
    """Even where numpy would broadcast it."""
    expected, found = {"x": np.ones((4, 3), np.float32)}, {"x": np.ones((1, 3), np.float32)}
    assert compare("context", expected, found) == GraphError(math.inf, "x")


def test_a_differing_boolean_is_an_infinite_error() -> None:
    expected, found = {"context_mask": np.array([[True, False]])}, {"context_mask": np.array([[True, True]])}
    assert compare("text_model", expected, found) == GraphError(math.inf, "context_mask")
    assert compare("text_model", expected, expected) == GraphError(0.0, "context_mask")


def test_levels_of_a_picture_may_differ_by_one() -> None:
    expected = {"pixels": np.array([[10, 255]], np.uint8)}
    assert compare("decoder", expected, {"pixels": np.array([[11, 254]], np.uint8)}).error == 0
    worst = compare("decoder", expected, {"pixels": np.array([[10, 0]], np.uint8)})
    assert worst == GraphError(254 / 255, "pixels")


def choices(total: int, differing: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs of the tokens graph. Where another code was drawn, its vectors differ by 9."""
    expected = {
        "logits": np.zeros((1, total, 4), np.float32),
        "indices": np.zeros((1, total), np.int64),
        "codes": np.zeros((1, total, 2), np.float32),
        "latent": np.zeros((1, total, 2), np.float32),
    }
    found = {name: value.copy() for name, value in expected.items()}
    for name in ("indices", "codes", "latent"):
        found[name][:, :differing] = 9
    return expected, found


def test_few_drawn_codes_may_differ() -> None:
    assert DIFFERING_CHOICES == 0.01
    for total, differing in ((1, 1), (64, 1), (400, 4)):
        assert compare("tokens", *choices(total, differing)).error == 0
    for total, differing in ((64, 2), (400, 5)):
        message = f"^graph tokens, tensor indices: {differing} of {total} codes differ from the reference's"
        with pytest.raises(ParityError, match=message):
            compare("tokens", *choices(total, differing))
    expected, found = choices(64, 1)
    found["latent"][0, 5] = 0.25  # a token with the same code
    assert compare("tokens", expected, found) == GraphError(0.25, "latent")


def ordered(order: list[int], kept: int = 6) -> dict[str, np.ndarray]:
    """Outputs of the graph select for eight tokens that changed by 0.8, 0.7 and so on, the third as much as the second
    but for 1e-5; token t has the row t."""
    change = np.array([[0.8, 0.7, 0.69999, 0.5, 0.4, 0.3, 0.2, 0.1]], np.float32)
    sources = np.argsort(order).clip(max=kept)[None]
    kept_x = np.array(order[:kept], np.float32)[None, :, None]
    return {"change": change, "order": np.array([order]), "sources": sources, "kept_x": kept_x}


def test_tokens_that_changed_alike_may_change_places() -> None:
    expected = ordered([0, 1, 2, 3, 4, 5, 6, 7])
    assert compare("select", expected, ordered([0, 2, 1, 3, 4, 5, 6, 7])).error == pytest.approx(1e-5, rel=0.01)
    worst = compare("select", expected, ordered([1, 0, 2, 3, 4, 5, 6, 7]))
    assert worst.tensor == "order" and worst.error == pytest.approx(0.1)
    boundary = compare("select", ordered([0, 1, 2, 3, 4, 5, 6, 7], 2), ordered([0, 2, 1, 3, 4, 5, 6, 7], 2))
    assert boundary.error == pytest.approx(1e-5, rel=0.01)  # another token is kept, whose row the reference has not


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("order", [[0, 0, 2, 3, 4, 5, 6, 7]], math.inf),
        ("sources", [[1, 0, 2, 3, 4, 5, 6, 6]], math.inf),
        ("sources", [[0, 1, 2, 3, 4, 5, 6, 7]], math.inf),
        ("kept_x", [[[0], [1], [2], [9], [4], [5]]], 6 / 5),
        ("kept_x", [[[0], [1], [2], [math.nan], [4], [5]]], math.inf),
        ("change", [[0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.2]], 0.1),
    ],
)
def test_what_is_wrong_in_an_order(name: str, value: list, error: float) -> None:
    expected = ordered([0, 1, 2, 3, 4, 5, 6, 7])
    found = expected | {name: np.array(value, expected[name].dtype)}
    worst = compare("select", expected, found)
    assert worst.tensor == name and worst.error == pytest.approx(error, abs=1e-4)


def encoded(distance: float, index: int) -> dict[str, np.ndarray]:
    """Outputs of the encoder graph whose f_hat is a distance away from the latent."""
    latent = np.zeros((1, 2, 2, 2), np.float32)
    f_hat = np.full_like(latent, distance)
    return {"latent": latent, "f_hat": f_hat, "indices": np.array([[index, 3]], np.int64)}


def test_encoder_may_choose_other_codes_that_are_as_near() -> None:
    assert compare("encoder", encoded(1.0, 0), encoded(1.04, 1)).error == 0  # 1.04 squared is within 1.25
    message = r"^graph encoder, tensor f_hat: mean square distance to the latent 1\.44e\+00, the reference's is 1\.00"
    with pytest.raises(ParityError, match=message):
        compare("encoder", encoded(1.0, 0), encoded(1.2, 1))
    with pytest.raises(ParityError, match="graph encoder, tensor f_hat"):
        compare("encoder", encoded(1.0, 0), encoded(math.nan, 1))
    assert compare("encoder", encoded(1.0, 0), encoded(1.04, 0)).error == pytest.approx(0.04, rel=1e-4)  # same codes


class Fixed:
    """A session that always returns the same outputs."""

    def __init__(self, answer: dict[str, np.ndarray]) -> None:
        self.answer = answer

    def run(self, inputs: object, outputs: list[str]) -> dict[str, np.ndarray]:
        return {name: self.answer[name] for name in outputs}


def test_check_keeps_the_worst_call_and_stops_at_the_tolerance() -> None:
    check = ParityCheck({"embed": Fixed({"x": np.zeros(1, np.float32)})}, {"embed": Scheme.FLOAT16})
    for value in (0.001, 0.015, 0.002):
        check("embed", {}, {"x": np.array([value], np.float32)})
    assert check.worst["embed"] == GraphError(pytest.approx(0.015, rel=1e-5), "x")
    assert check.calls == {"embed": 3}
    with pytest.raises(ParityError, match=r"graph embed, tensor x: error 3\.00e-02 .* tolerance 2e-02 at fp16"):
        check("embed", {}, {"x": np.array([0.03], np.float32)})
    with pytest.raises(ParityError, match="graph embed, tensor x: error inf"):
        check("embed", {}, {"x": np.array([math.nan], np.float32)})
    assert TOLERANCE[Precision.FP32] < TOLERANCE[Precision.FP16] < TOLERANCE[Precision.INT8]


def test_a_call_is_named_by_its_scale() -> None:
    """Calls of each graph are counted image after image; inputs are cast to the types of the session."""
    seen: list[tuple[str, int | None]] = []

    def explain(graph: str, exact: dict[str, np.ndarray], feeds: dict[str, np.ndarray]) -> str:
        assert [each["past"].dtype for each in (exact, feeds)] == [np.float32, np.float16]
        return f"{graph} it is; "

    sessions = {name: Fixed({"x": np.zeros(1, np.float32)}) for name in ("embed", "decoder")}
    inputs = {"embed": (TensorSpec("past", Dtype.FLOAT16, (1,)),)}
    scales = {"embed": (1, 2), "decoder": (None,)}
    schemes = dict.fromkeys(sessions, Scheme.FLOAT16)
    check = ParityCheck(sessions, schemes, inputs, scales, lambda *call: seen.append(call[:2]), explain)
    for _ in range(2):
        for graph in ("embed", "embed", "decoder"):
            check(graph, {"past": np.ones(1, np.float32)}, {"x": np.zeros(1, np.float32)})
    assert seen == [("embed", 1), ("embed", 2), ("decoder", None)] * 2
    check("embed", {"past": np.ones(1, np.float32)}, {"x": np.zeros(1, np.float32)})
    message = r"^graph embed, scale 2, tensor x: error 1\.00e\+00 .*; embed it is; nothing was written\. Try --prec"
    with pytest.raises(ParityError, match=message):
        check("embed", {"past": np.ones(1, np.float32)}, {"x": np.ones(1, np.float32)})


def test_a_head_in_fp16_may_move_the_smooth_latent_farther() -> None:
    schemes = [scheme for scheme in Scheme if scheme is not Scheme.INT4_BLOCKS]  # of text models alone
    wider = {(graph, scheme) for graph in ComponentName for scheme in schemes}
    wider = {(graph, scheme) for graph, scheme in wider if tolerance_of(graph, scheme) != TOLERANCE[scheme.precision]}
    pixels = {("decoder", Scheme.FLOAT32), ("encoder", Scheme.FLOAT32)}
    steps = {("residual", scheme) for scheme in Scheme if scheme.precision in (Precision.FP32, Precision.FP16)}
    assert wider == {("tokens", Scheme.FLOAT16_PRODUCTS), *steps, *pixels}
    answer = {"latent": np.full((1, 2, 1), 1.04, np.float32), "indices": np.array([[3, 4]])}
    expected = {"latent": np.ones((1, 2, 1), np.float32), "indices": np.array([[3, 4]])}
    ParityCheck({"tokens": Fixed(answer)}, {"tokens": Scheme.FLOAT16_PRODUCTS})("tokens", {}, expected)
    with pytest.raises(ParityError, match=r"^graph tokens, tensor latent: error 4\.00e-02 .* tolerance 2e-02 at fp16"):
        ParityCheck({"tokens": Fixed(answer)}, {"tokens": Scheme.FLOAT16})("tokens", {}, expected)
    answer["indices"] = np.array([[5, 6]])
    with pytest.raises(ParityError, match=r"^graph tokens, tensor indices: 2 of 2 codes differ"):
        ParityCheck({"tokens": Fixed(answer)}, {"tokens": Scheme.FLOAT16_PRODUCTS})("tokens", {}, expected)


def test_every_graph_must_have_been_compared() -> None:
    sessions = {name: Fixed({"x": np.zeros(1, np.float32)}) for name in ("embed", "latent", "encoder")}
    check = ParityCheck(sessions, dict.fromkeys(sessions, Scheme.FLOAT32))
    check("latent", {}, {"x": np.zeros(1, np.float32)})  # no error at all, but compared
    assert check.worst["latent"] == GraphError(0.0, "x")
    with pytest.raises(BuildError, match=r"^graphs embed, encoder were never compared with the reference; please"):
        require_observed(check)
    check("embed", {}, {"x": np.zeros(1, np.float32)})
    check("encoder", {}, {"x": np.zeros(1, np.float32)})
    require_observed(check)
