"""Builds for TensorRT and TensorRT-RTX: portable bundles, real engines, and the command that builds them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hart_edge.bundle.manifest import ComponentName, Manifest, Precision, Target, TargetSpec, to_json
from hart_edge.bundle.settings import Speed
from hart_edge.bundle.verify import open_bundle
from hart_edge.calib.calibrate.ranges import ActivationRange
from hart_edge.calib.graph_files import read_graph, save_graph
from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.scheme import Scheme
from hart_edge.cli.main import main
from hart_edge.engines.base import BuildProgress, EngineSettings, Profile
from hart_edge.engines.bundle_build import EngineDone, EngineJob, build_engines, engine_reports
from hart_edge.engines.loading import load
from hart_edge.engines.profiles import profiles_of
from hart_edge.errors import BuildError
from hart_edge.export.chain import build
from hart_edge.export.onnx_export import export_graph
from hart_edge.export.options import BuildOptions, StepDone
from hart_edge.export.plan_builder import build_plans
from hart_edge.export.stages.read import random_source
from hart_edge.export.tensorrt_lint.lint import require_clean
from hart_edge.export.tools import Tools
from hart_edge.reference.presets import SHIPPED_MODEL
from hart_edge.runtime.context import Context
from tests.calib.make_graphs import conv_model
from tests.conftest import BuildCommand, BuildOnce
from tests.engines.tensorrt.small_graphs import CLASSIC, RTX
from tests.export.small_checkpoint import CHECKPOINT, contents
from tests.reference.tiny_hart import tiny_checkpoint, tiny_context

FLOAT32 = ("tokens", "latent", "embed")
GRAPHS = [each for each in ComponentName if each is not ComponentName.SELECT]  # engines have the exact speed alone
Portable = Callable[[Target, Precision], Path]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint whose keys and values have 256 bytes per token in FP16, the alignment that engines need."""
    llm = {"embed_dim": 128, "patch_nums": [1, 2, 3, 4], "context_token": 12, "context_dim": 48, "disable_aln": False}
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "wide", 10, llm=llm).folder


@pytest.fixture(scope="module")
def portable(tools: Tools, wide: Path, tmp_path_factory: pytest.TempPathFactory) -> Portable:
    """A portable bundle of that checkpoint, built once. Tests must not change it."""
    built: dict[tuple[Target, Precision], Path] = {}
    context, mask = tiny_context({"context_token": 12, "context_dim": 48}, "right", (7, 3), seed=1)
    contexts = tmp_path_factory.mktemp("given") / "contexts.npz"
    np.savez(contexts, context=context, context_mask=mask)

    def build_portable(target: Target, precision: Precision) -> Path:
        if (target, precision) not in built:
            out = tmp_path_factory.mktemp("portable") / f"{target}-{precision}"
            build(BuildOptions(wide, out, precision, target, contexts=contexts, portable=True), tools=tools)
            built[target, precision] = out
        return built[target, precision]

    return build_portable


def require_whole(folder: Path) -> Manifest:
    """Check that a bundle of engines is complete, and that its reports account for every node."""
    manifest = open_bundle(folder).manifest
    reports = engine_reports(folder, manifest)
    for component in manifest.components:
        report = reports[component.name]
        assert report["engine_bytes"] == component.bytes == (folder / component.file).stat().st_size > 10_000
        assert report["scheme"] == component.scheme and report["layers"] > 0
        assert sum(report["fates"].values()) == len(report["nodes"]) > 20
        assert set(report["fates"]) <= {"layer", "fused", "folded", "constant"}, component.name
        products = [node for node in report["nodes"] if node["operator"] in ("MatMul", "Gemm", "Conv", "Softmax")]
        assert products and {node["fate"] for node in products} <= {"layer", "fused"}, component.name
        assert len(report["activation_bytes"]) == len(report["profiles"]) == len(component.engine.profiles)
        assert report["architectures"] == list(manifest.target.engines.architectures)
    return manifest


# --- portable bundles


def test_a_portable_bundle_holds_fp16_tensors(portable: Portable) -> None:
    manifest = open_bundle(portable(Target.TENSORRT_RTX, Precision.FP16)).manifest
    assert manifest.target == TargetSpec(Target.TENSORRT_RTX, None)
    for component in manifest.components:
        assert component.scheme == ("float32" if component.name in FLOAT32 else "float16, float32 statistics")
        for tensor in (*component.inputs, *component.outputs):
            cached = re.match(r"(past_)?(null_)?(key|value)\.", tensor.name) is not None
            assert (tensor.dtype == "float16") is cached, tensor.name
    buffers = manifest.plan.buffers
    in_fp16 = {name for name, buffer in buffers.items() if buffer.dtype == "float16"}
    assert in_fp16 and all(re.match(r"(past_)?(null_)?(key|value)\.|past_null\.empty", name) for name in in_fp16)
    whole = open_bundle(portable(Target.TENSORRT_RTX, Precision.FP32)).manifest.plan.buffers
    assert all(2 * buffers[name].bytes_per_image == whole[name].bytes_per_image for name in in_fp16)


@pytest.mark.parametrize("target", [Target.TENSORRT, Target.TENSORRT_RTX])
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT8])
def test_the_graphs_draw_on_a_cpu(
    portable: Portable, wide: Path, build_once: BuildOnce, tmp_path: Path, target: Target, precision: Precision
) -> None:
    """The graphs from which engines are built, run on the CPU: buffers, dtypes and numbers fit together."""
    folder = tmp_path / "here"
    for name in contents(source := portable(target, precision)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((source / name).read_bytes())
    manifest = open_bundle(source).manifest
    (folder / "manifest.json").write_bytes(to_json(replace(manifest, target=TargetSpec(Target.CPU, None))))
    context, mask = tiny_context({"context_token": 12, "context_dim": 48}, "right", (5,), seed=2)
    given, paths = Context(context[0], mask[0]), (build_once(wide, Precision.FP32), folder)
    pictures = [np.asarray(load(path).generate(given, seed=3)) for path in paths]
    assert pictures[0].shape == pictures[1].shape == (64, 64, 3) and pictures[1].std() > 5
    if precision is Precision.FP16:
        assert np.abs(pictures[0].astype(int) - pictures[1]).mean() < 12  # in 8-bit steps; some codes differ


def test_int8_schemes(portable: Portable) -> None:
    schemes = {
        target: {c.name: c.scheme for c in open_bundle(portable(target, Precision.INT8)).manifest.components}
        for target in (Target.TENSORRT, Target.TENSORRT_RTX)
    }
    assert schemes[Target.TENSORRT]["transformer"] == "static S8S8 Q/DQ, float16 elsewhere"
    assert schemes[Target.TENSORRT_RTX]["transformer"] == "INT8 weights per channel, float16 arithmetic"
    for found in schemes.values():
        assert found["encoder"] == "float16, float32 statistics"
        assert found["decoder"] == "float16, float32 statistics"
    (decoder,) = (
        component
        for component in open_bundle(portable(Target.TENSORRT, Precision.INT8)).manifest.components
        if component.name == "decoder"
    )
    assert re.match(r"static S8S8 convolutions, .*: worst picture 2\d\.\d dB, limit 40 dB$", decoder.reason)
    ranges = [(portable(target, Precision.INT8) / "calibration.json").read_bytes() for target in schemes]
    assert ranges[0] == ranges[1]  # the same ranges for every scheme


def test_without_the_library_the_bundle_is_portable_and_the_build_says_so(
    build_command: BuildCommand,
    tools: Tools,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    out = tmp_path / "bundle"
    arguments = ["--checkpoint", str(CHECKPOINT), "--precision", "fp16", "--target", "tensorrt", "--out", str(out)]
    assert build_command(arguments) == 0
    said = capsys.readouterr().out
    assert "a portable bundle: it holds graphs and no engines yet. On a machine with the engine library:\n" in said
    assert f"    hart-edge engines {out} --target tensorrt\n" in said
    assert open_bundle(out).manifest.target == TargetSpec(Target.TENSORRT, None)
    events: list[object] = []
    build(BuildOptions(CHECKPOINT, out, Precision.FP16, Target.TENSORRT), events.append, tools=tools)
    labels = [event.label for event in events if isinstance(event, StepDone)]
    assert labels[-1].startswith("no engines: target tensorrt: tensorrt is not installed; pip install 'hart-edge[")


@pytest.mark.parametrize(
    ("precision", "architectures", "message"),
    [
        (Precision.FP16, ("sm_87",), "sm_87 is Jetson Orin, where TensorRT-RTX does not run; build there with"),
        (Precision.FP32, ("sm_75",), "TensorRT-RTX has no matrix products in float32 for sm_75; use --precision fp16"),
        (Precision.INT8, ("sm_86", "sm_75"), "TensorRT-RTX supports no INT8 weights on sm_75; use --precision fp16"),
    ],
)
def test_impossible_builds_are_refused_before_anything_is_read(
    tmp_path: Path, precision: Precision, architectures: tuple[str, ...], message: str
) -> None:
    events: list[object] = []
    settings = EngineSettings(architectures=architectures)
    with pytest.raises(BuildError, match=f"^target tensorrt-rtx: {message}"):
        build(BuildOptions(CHECKPOINT, tmp_path / "b", precision, Target.TENSORRT_RTX, engines=settings), events.append)
    assert events == [] and list(tmp_path.iterdir()) == []


# --- hart-edge engines


def test_the_command_needs_neither_torch_nor_onnx(portable: Portable, tmp_path: Path) -> None:
    """A device has only numpy and the engine library."""
    out = tmp_path / "engines"
    block = "import sys; sys.modules.update(torch=None, onnx=None, onnxruntime=None, transformers=None); "
    call = "from hart_edge.cli.main import main; raise SystemExit(main(sys.argv[1:]))"
    source = str(portable(Target.TENSORRT_RTX, Precision.FP16))
    options = ["--target", "tensorrt-rtx", "--architectures", "86", "--images", "2", "--out", str(out)]
    command = [sys.executable, "-c", block + call, "engines", source, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = require_whole(out)
    assert manifest.name == "engines" and manifest.target.engines.architectures == ("sm_86",)
    assert manifest.target.engines.images_at_once == 2
    assert "transformer: parsing" in done.stderr or "transformer: starting" in done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[-1] for line in lines[:8]] == [str(name) for name in GRAPHS if name != "text_model"]
    assert lines[-1].startswith(f"{out}: tensorrt-rtx {manifest.target.engines.version} for sm_86, ")
    card = (out / "README.md").read_text("utf-8")
    assert "Engines of tensorrt-rtx " in card and "for sm_86, which take up to 2 images at once" in card
    assert f"hart-edge engines {source} --target tensorrt-rtx" in card


def test_refusals_of_the_command(portable: Portable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(portable(Target.TENSORRT_RTX, Precision.FP32))
    for arguments, message in (
        (["--target", "tensorrt-rtx", "--architectures", "sm_110"], "sm_110 is Jetson Thor, where TensorRT-RTX does"),
        (["--target", "tensorrt-rtx", "--architectures", "7.5"], "it is fp32, and TensorRT-RTX has no matrix"),
        (["--target", "tensorrt"], "target tensorrt: "),
    ):
        assert main(["engines", source, "--out", str(tmp_path / "out"), *arguments]) == 1
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_all_graphs_take_the_path_of_classic_tensorrt(portable: Portable, tmp_path: Path) -> None:
    """S8S8 graphs through the code, parser and builder that tensorrt shares with tensorrt-rtx."""
    folder, out = portable(Target.TENSORRT, Precision.INT8), tmp_path / "engines"
    settings = CLASSIC.prepare(EngineSettings(timing_cache=tmp_path / "timings"))
    job = EngineJob(folder, open_bundle(folder).manifest, Target.TENSORRT, out, "e", settings, lambda *_: "# e\n")
    done: list[EngineDone] = []
    build_engines(job, CLASSIC, lambda _: None, done.append)
    manifest = require_whole(out)
    assert manifest.target.name is Target.TENSORRT and manifest.target.engines.architectures == ("sm_87",)
    report = engine_reports(out, manifest)["transformer"]
    assert {node["fate"] for node in report["nodes"] if node["operator"] == "QuantizeLinear"} <= {"layer", "fused"}
    assert len(done) == 8


def test_int8_convolutions_become_layers(tmp_path: Path) -> None:
    """Those of a decoder, through the same path: two quantised inputs, two convolutions of them."""
    model, out = conv_model(), tmp_path / "small.engine"
    for node in model.graph.node:
        node.name = node.output[0]  # as tracing does
    ranges = {name: ActivationRange(-4.0, 4.0, tuple(range(32))) for name in ("x", "h")}
    path = tmp_path / "small.onnx"
    save_graph(apply_scheme(model, Scheme.S8S8_CHANNELS, ranges), path, tmp_path)
    profiles = [Profile(None, {"x": ((1, 32, 8, 8),) * 3})]
    report = CLASSIC.build(path, profiles, CLASSIC.prepare(EngineSettings()), out, lambda _: None)
    fates = {(node["operator"], node["fate"]) for node in report["nodes"]}
    assert {("QuantizeLinear", "layer"), ("Conv", "layer")} <= fates
    assert report["layers_by_precision"]["Int8"] == 2


# --- the shipped model


def shipped(tools: Tools, out: Path, precision: Precision, *architectures: str) -> tuple[Manifest, dict[str, dict]]:
    seen: list[object] = []
    settings = EngineSettings(architectures=architectures)
    build(BuildOptions(SHIPPED_MODEL, out, precision, Target.TENSORRT_RTX, engines=settings), seen.append, tools=tools)
    assert {event.component for event in seen if isinstance(event, BuildProgress)} == set(GRAPHS)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    manifest = require_whole(out)
    assert [component.name for component in manifest.components] == GRAPHS
    return manifest, engine_reports(out, manifest)


@pytest.mark.parametrize(
    ("target", "precision", "architectures"),
    [
        (Target.TENSORRT_RTX, Precision.FP16, ("sm_86",)),
        pytest.param(Target.TENSORRT_RTX, Precision.FP16, ("sm_75",), marks=pytest.mark.slow),
        pytest.param(Target.TENSORRT, Precision.INT8, (), marks=pytest.mark.slow),
    ],
)
def test_the_shipped_model_keeps_the_limits(
    tools: Tools, tmp_path: Path, target: Target, precision: Precision, architectures: tuple[str, ...]
) -> None:
    """In the schemes for GPUs. The slow tests below build engines of it."""
    settings = EngineSettings(architectures=architectures)
    options = BuildOptions(SHIPPED_MODEL, tmp_path / "bundle", precision, target, engines=settings, portable=True)
    manifest = build(options, tools=tools)
    quality = manifest.quality
    (decoder,) = (component for component in manifest.components if component.name == "decoder")
    assert decoder.precision is (Precision.INT8 if precision is Precision.INT8 else Precision.FP16)
    assert quality is not None and quality.prompts == 8


@pytest.mark.slow
def test_the_shipped_model_for_three_architectures(tools: Tools, tmp_path: Path) -> None:
    manifest, reports = shipped(tools, tmp_path / "bundle", Precision.FP16)
    assert manifest.target.engines.architectures == ("sm_86", "sm_89", "sm_120")
    profiles = {str(component.name): component.engine.profiles for component in manifest.components}
    assert profiles["transformer"] == profiles["tokens"] == (0, 1, 2, 3, 4, 5, 6)
    assert profiles["latent"] == (0, 1, 2, 3, 4, 5) and profiles["embed"] == (1, 2, 3, 4, 5, 6)
    assert profiles["residual"] == (6,)
    assert all(profiles[name] == (None,) for name in ("text_model", "context", "decoder", "encoder"))
    for name in FLOAT32:
        assert "Half" not in reports[name]["layers_by_precision"]
    transformer = reports["transformer"]["layers_by_precision"]
    assert transformer["Half"] > 3 * transformer["Float"]
    weights = reports["transformer"]["weight_bytes"]
    assert 2 * 8.5e6 < weights < 2.6 * 8.6e6  # all seven profiles share the weights, of two bytes each
    card = (tmp_path / "bundle" / "README.md").read_text("utf-8")
    assert "for sm_86, sm_89, sm_120, which take up to 1 images at once" in card
    components = json.loads((tmp_path / "bundle" / "manifest.json").read_bytes())["components"]
    assert all(component["max_error"] < 0.02 for component in components if component["name"] != "residual")


@pytest.mark.slow
def test_the_shipped_model_for_turing(tools: Tools, tmp_path: Path) -> None:
    """Every matrix product is in FP16, because Turing has none in float32."""
    manifest, _ = shipped(tools, tmp_path / "bundle", Precision.FP16, "sm_75")
    schemes = {str(component.name): component.scheme for component in manifest.components}
    assert {name for name, scheme in schemes.items() if scheme == "float16 products, float32 elsewhere"} == {
        *FLOAT32,
        "encoder",
    }


@pytest.mark.slow
def test_the_shipped_model_in_int8(tools: Tools, tmp_path: Path) -> None:
    manifest, reports = shipped(tools, tmp_path / "bundle", Precision.INT8)
    assert manifest.calibration is not None and manifest.calibration.prompts == 20
    for component in manifest.components:
        reduced = component.name in ("text_model", "context", "transformer", "residual")
        assert component.scheme.startswith("INT8 weights") is reduced
        dequantized = [n for n in reports[component.name]["nodes"] if n["operator"] == "DequantizeLinear"]
        assert bool(dequantized) is reduced and {node["fate"] for node in dequantized} <= {"layer", "fused"}


@pytest.mark.slow
def test_the_published_transformer(tmp_path: Path) -> None:
    """The 0.7B shape with random weights in FP16: one engine, with a profile per scale over the same weights."""
    source = random_source("hart-0.7b-256")
    graph, plan = source.graphs["transformer"], build_plans(source.model, source.graphs)[0][Speed.EXACT]
    parameters = sum(parameter.numel() for parameter in source.model.transformer.blocks.parameters())
    export_graph(graph, tmp_path / "traced.onnx")
    path = tmp_path / "transformer.onnx"
    save_graph(apply_scheme(read_graph(tmp_path / "traced.onnx"), Scheme.FLOAT16, {}, tmp_path), path, tmp_path)
    require_clean(path)
    del source, graph
    manifest, component = SimpleNamespace(plan=plan), SimpleNamespace(name="transformer", inputs=())
    profiles = profiles_of(manifest, component, 1)
    assert [profile.scale for profile in profiles] == list(range(10))
    settings = RTX.prepare(EngineSettings(architectures=("sm_86",)))
    report = RTX.build(path, profiles, settings, tmp_path / "transformer.engine", lambda _: None)
    (tmp_path / "transformer.json").write_text(json.dumps(report))  # figures for docs/engines.md
    assert set(report["fates"]) <= {"layer", "fused", "folded", "constant"}
    assert 1.99 * parameters <= report["weight_bytes"] < 2.2 * parameters
    assert report["engine_bytes"] < 1.5 * report["weight_bytes"]
    assert len(report["activation_bytes"]) == 10
