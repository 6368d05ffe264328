"""The choice of INT8 schemes on a small graph: by time, by error, by a budget, and by the user's options."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from hart_edge.bundle.manifest import Dtype, Target, TensorSpec
from hart_edge.bundle.quality import Limits
from hart_edge.calib.calibrate.channel_ranges import channel_ranges
from hart_edge.calib.calibrate.collector import Collector
from hart_edge.calib.calibrate.ranges import ActivationRange, CalibratedRanges
from hart_edge.calib.scheme import CacheForm, Int8Scheme, Scheme
from hart_edge.calib.select.fastest import Choice
from hart_edge.calib.select.logits import LogitError
from hart_edge.engines.base import BuildProgress
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import BuildError
from hart_edge.export.parity.recording import Recorder, Recording
from hart_edge.export.stages import int8_choice
from hart_edge.export.stages.decide import weights_like
from hart_edge.export.stages.int8_choice import Decision, Int8Choice
from tests.calib.make_graphs import conv_model, initializer, linear_model

X = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
GOOD = {"x": ActivationRange(-4.0, 4.0), "r": ActivationRange(0.0, 4.0)}


def choice(folder: Path, ranges: dict[str, ActivationRange], **functions: Any) -> tuple[Int8Choice, list[str]]:
    """An Int8Choice for one graph, residual.onnx, and the lines that it logs. functions: fields of Int8Choice."""
    model = linear_model()
    model.graph.name = "residual"
    onnx.save_model(model, folder / "residual.onnx")
    said: list[str] = []
    calibrated = CalibratedRanges("a" * 64, 1, "b" * 64, {}, {"residual": ranges})
    return Int8Choice(folder, {}, calibrated, REGISTRY.library(Target.CPU), said.append, 40.0, **functions), said


def record(folder: Path) -> Recording:
    """A recording of two prompts with one call each of the graph in a folder, with its real outputs for X."""
    (path,) = folder.glob("*.onnx")
    y = REGISTRY.library(Target.CPU).open(path).run({"x": X})["y"]
    recorder = Recorder(folder / "calls")
    for _ in range(2):
        recorder(path.stem, {"x": X}, {"y": y})
        recorder.end_prompt()
    return recorder.recording()


def decide(
    folder: Path, ranges: dict[str, ActivationRange], wanted: Int8Scheme, scheme: Scheme = Scheme.U8S8, **functions: Any
) -> Decision:
    made, _ = choice(folder, ranges, **functions)
    decisions = {"residual": Decision(scheme), "transformer": Decision(Scheme.FLOAT32)}
    return made.decide(decisions, wanted, record(folder), None)[0]["residual"]


@pytest.mark.parametrize(
    ("wanted", "scheme"),
    [
        (Int8Scheme.STATIC, Scheme.U8S8),
        (Int8Scheme.DYNAMIC, Scheme.DYNAMIC),
        (Int8Scheme.WEIGHTS, Scheme.INT8_WEIGHTS),
    ],
)
def test_a_scheme_that_the_user_chose_is_not_measured(tmp_path: Path, wanted: Int8Scheme, scheme: Scheme) -> None:
    assert decide(tmp_path, GOOD, wanted) == Decision(scheme)


def test_schemes_of_other_targets_are_kept(tmp_path: Path) -> None:
    assert decide(tmp_path, GOOD, Int8Scheme.MEASURED, Scheme.S8S8) == Decision(Scheme.S8S8)


@pytest.mark.parametrize("fastest", [Scheme.U8S8, Scheme.DYNAMIC, Scheme.INT8_WEIGHTS])
def test_the_fastest_scheme_is_chosen_and_reported(tmp_path: Path, fastest: Scheme) -> None:
    def choose(candidates, calls, **_: float) -> Choice:
        assert [each.scheme for each in candidates] == [Scheme.INT8_WEIGHTS, Scheme.DYNAMIC, Scheme.U8S8]
        assert len(calls) == 1  # of the first prompt
        return Choice(fastest, "1.0 ms; others: 2.0 ms")

    made, said = choice(tmp_path, GOOD, choose=choose)
    decisions = {"residual": Decision(Scheme.U8S8), "transformer": Decision(Scheme.FLOAT32)}
    found = made.decide(decisions, Int8Scheme.MEASURED, record(tmp_path), None)[0]["residual"]
    assert found == Decision(fastest, "1.0 ms; others: 2.0 ms")
    assert said == [f"residual: {fastest}: 1.0 ms; others: 2.0 ms"]


def test_a_scheme_with_a_large_error_is_not_chosen_however_fast(tmp_path: Path) -> None:
    """The ranges clip most of x, so static products are useless, but dynamic ones are not."""
    found = decide(tmp_path, {"x": ActivationRange(-0.1, 0.1), "r": ActivationRange(0.0, 0.01)}, Int8Scheme.MEASURED)
    assert found.scheme in (Scheme.DYNAMIC, Scheme.INT8_WEIGHTS)
    assert "static U8S8 Q/DQ: error " in found.reason


def test_no_scheme_has_a_small_enough_error(tmp_path: Path) -> None:
    message = (
        r"^graph residual: no INT8 scheme comes near the reference \(INT8 .*; dynamic .*; static .*\); calibrate on"
    )
    with pytest.raises(BuildError, match=message):
        decide(tmp_path, GOOD, Int8Scheme.MEASURED, tolerance=lambda name, scheme, random: 1e-9)


def test_weights_by_pattern(tmp_path: Path) -> None:
    onnx.save_model(linear_model(), tmp_path / "small.onnx")
    graphs = {"small": tmp_path / "small.onnx"}
    assert weights_like(graphs, []) == {"small": frozenset()}
    assert weights_like(graphs, ["fir*"]) == {"small": {"first"}}
    assert weights_like(graphs, ["first", "sec*d"]) == {"small": {"first", "second"}}
    with pytest.raises(BuildError, match=r"^--exclude blocks\.0: no weight has a name like this; they are like first$"):
        weights_like(graphs, ["blocks.0"])


@pytest.mark.parametrize(
    ("wanted", "scheme", "instead"),
    [
        (Int8Scheme.STATIC, Scheme.U8S8_CHANNELS, Scheme.INT8_WEIGHTS),
        (Int8Scheme.MEASURED, Scheme.U8S8_CHANNELS, Scheme.INT8_WEIGHTS),
        (Int8Scheme.MEASURED, Scheme.S8S8_CHANNELS, Scheme.FLOAT16),
    ],
)
@pytest.mark.parametrize("narrow", [False, True])
def test_a_decoder_whose_pictures_would_suffer_has_another_scheme(
    tmp_path: Path, wanted: Int8Scheme, scheme: Scheme, instead: Scheme, narrow: bool
) -> None:
    """The worst of all pictures decides, though the first alone would do."""
    model = conv_model()
    model.graph.name = "decoder"
    model.graph.node[1].output[0] = model.graph.output[0].name = "image"
    onnx.save_model(model, tmp_path / "decoder.onnx")
    library, recorder = REGISTRY.library(Target.CPU), Recorder(tmp_path / "calls")
    pictures = np.random.default_rng(0).uniform(0, 0.01, (2, 1, 32, 8, 8)).astype(np.float32)
    pictures[1] *= 100
    for x in pictures:
        recorder("decoder", {"x": x}, library.open(tmp_path / "decoder.onnx").run({"x": x}))
        recorder.end_prompt()
    most = 0.01 if narrow else 1.0
    with Collector({"decoder": tmp_path / "decoder.onnx"}, {"decoder": Scheme.U8S8_CHANNELS}, library) as collector:
        collector.run("decoder", {"x": most * pictures[1]}, {})
        collector.end_prompt()
    ranges = channel_ranges(
        model, Scheme.U8S8_CHANNELS, collector.statistics["decoder"], lambda name: initializer(model, name)
    )
    calibrated = CalibratedRanges("a" * 64, 1, "b" * 64, {}, {"decoder": ranges})
    said: list[str] = []
    made = Int8Choice(
        tmp_path,
        {"decoder": SimpleNamespace(inputs=(TensorSpec("x", Dtype.FLOAT32, ("B",)),))},  # type: ignore[dict-item]  # nobody runs it
        calibrated,
        library,
        said.append,
        25.0,
        choose=lambda found, _, equal: Choice(list(found)[-1].scheme, "the fastest"),
        tolerance=lambda *_, **__: 1e9,
    )
    decisions = {"decoder": Decision(scheme), "transformer": Decision(Scheme.FLOAT32)}
    found = made.decide(decisions, wanted, recorder.recording(), None)[0]["decoder"]
    assert found.scheme is (instead if narrow else scheme)
    assert (f"{scheme}: worst picture" in found.reason) == narrow
    assert any(line.startswith(f"decoder: {instead}: ") for line in said) == narrow


@pytest.mark.parametrize("scheme", [Scheme.U8S8, Scheme.INT8_WEIGHTS])
@pytest.mark.parametrize("kl", [1e-3, 1.0])
def test_keys_are_int8_as_long_as_the_logits_allow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kl: float, scheme: Scheme
) -> None:
    """Of what opens the graph only its keys are told; the judge looks at nothing else."""

    class Judge:
        def errors(self, session: object) -> list[LogitError]:
            return [LogitError(100, 99, 1.0, 0.1, 100 * (kl if session is CacheForm.INT8_KEYS else 1e-3))]

    monkeypatch.setattr(int8_choice, "logits_judge", lambda *_: Judge())
    monkeypatch.setattr(Int8Choice, "_open", lambda choice, *_: choice.cache)
    made, said = choice(tmp_path, GOOD, cache=CacheForm.INT8_KEYS)
    monkeypatch.setitem(made.graphs, "tokens", None)  # type: ignore[arg-type]  # nobody runs it
    decisions = {"transformer": Decision(scheme)}
    recording, limits = record(tmp_path), Limits(min_top_1=0.9, max_kl=0.1, min_psnr=40.0)
    found, cache = made.decide(decisions, Int8Scheme.STATIC, recording, limits)
    assert cache is (CacheForm.FLOAT16 if kl == 1.0 else CacheForm.INT8_KEYS)
    assert any("transformer: keys in FP16; in INT8: KL 1.0e+00 nats" in line for line in said) == (kl == 1.0)
    assert not found["transformer"].weight_only


def test_each_layer_is_told_of_as_its_turn_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transformer is near enough once its first layer is left out."""

    class Judge:
        def errors(self, left_out: frozenset[str], *, first_prompt: bool = False) -> list[LogitError]:
            return [LogitError(100, 99, 1.0, 0.1, 1e-3 if "first" in left_out else 100.0)]

    monkeypatch.setattr(int8_choice, "logits_judge", lambda *_: Judge())
    monkeypatch.setattr(Int8Choice, "_open", lambda _, __, ___, excluded, weights=(): frozenset({*excluded, *weights}))
    told: list[BuildProgress] = []
    made, said = choice(tmp_path, GOOD, progress=told.append)
    monkeypatch.setitem(made.graphs, "tokens", None)  # type: ignore[arg-type]  # nobody runs it
    recording = record(tmp_path)
    onnx.save_model(linear_model(), tmp_path / "transformer.onnx")
    limits = Limits(min_top_1=0.9, max_kl=0.1, min_psnr=40.0)
    found, _ = made.decide({"transformer": Decision(Scheme.U8S8)}, Int8Scheme.STATIC, recording, limits)
    assert found["transformer"].weight_only == {"first"}
    assert [(each.component, each.phase, each.done, each.total) for each in told] == [
        ("transformer", "INT8 in first alone,", 1, 2),
        ("transformer", "INT8 in second alone,", 2, 2),
    ]
    assert said[0].endswith("looking at each of 2 layers")
