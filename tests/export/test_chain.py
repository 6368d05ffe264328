"""Whole builds: the content of a bundle at each precision, and that its manifest and card agree with it."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from hart_edge.bundle.manifest import ComponentName, Dtype, Precision, Target
from hart_edge.bundle.memory import cache_peak
from hart_edge.bundle.quality import LIMITS
from hart_edge.bundle.settings import Settings
from hart_edge.bundle.verify import open_bundle
from hart_edge.calib.calibrate.prompts import read_prompts
from hart_edge.calib.rewrite.attention_parts import LibraryInParts
from hart_edge.calib.rewrite.kv_cache import SMALL_CACHE_FROM
from hart_edge.calib.scheme import Int8Scheme, Scheme
from hart_edge.cli.main import main as generate
from hart_edge.engines.loading import load
from hart_edge.errors import BuildError
from hart_edge.export.chain import build
from hart_edge.export.options import FUSED_FROM, BuildOptions, StepDone
from hart_edge.export.parity.compare import tolerance_of
from hart_edge.export.parity.limits import find_breach
from hart_edge.export.stages.context import open_context
from hart_edge.export.stages.read import PARITY_PROMPTS, read, read_source
from hart_edge.export.stages.trace import trace
from hart_edge.export.tools import Tools
from hart_edge.reference.presets import SHIPPED_MODEL
from hart_edge.runtime.context import Context
from hart_edge.runtime.pipeline import RandomWeightsWarning
from tests.conftest import BuildCommand
from tests.export.small_checkpoint import CHECKPOINT, contents, folder_bytes, small_configs
from tests.reference.tiny_hart import tiny_context

INT8_COMPONENTS = {"text_model", "context", "transformer", "residual", "decoder", "encoder"}


def test_sizes(fp32_bundle: Path, fp16_bundle: Path, int8_bundle: Path) -> None:
    whole = folder_bytes(fp32_bundle)
    assert folder_bytes(int8_bundle) <= 0.35 * whole
    assert 0.45 * whole <= folder_bytes(fp16_bundle) <= 0.6 * whole


@pytest.mark.long
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.FP16, Precision.INT8])
def test_manifest_and_card(request: pytest.FixtureRequest, precision: Precision) -> None:
    folder = request.getfixturevalue(f"{precision}_bundle")
    manifest = open_bundle(folder).manifest
    assert manifest.precision is precision and manifest.target.name is Target.CPU
    assert manifest.name == f"hart-emoji-{precision}"
    assert [component.name for component in manifest.components] == list(ComponentName)
    assert manifest.patch_nums == (1, 2, 3, 4, 5, 6, 8) and manifest.image_size == 128
    card = (folder / "README.md").read_text("utf-8")
    assert card.startswith(f"# {manifest.name}\n")
    for component in manifest.components:
        reduced = precision is not Precision.FP32 and component.name in INT8_COMPONENTS
        assert component.precision is (precision if reduced else Precision.FP32), component.name
        assert 0 <= component.max_error <= tolerance_of(component.name, Scheme(component.scheme)), component.name
        assert component.worst_tensor in {tensor.name for tensor in component.outputs}, component.name
        assert component.bytes == sum(
            entry.bytes for name, entry in manifest.files.items() if name in (component.file, f"{component.file}.data")
        )
        row = f"| {component.name} | {component.precision} | {component.scheme} | {component.parameters:,} | "
        assert f"{row}{component.bytes:,} | {component.max_error:.1e} | {component.worst_tensor} |\n" in card
    total = sum(component.bytes for component in manifest.components)
    assert f"{total:,} |" in card
    limits, quality = LIMITS[precision], manifest.quality
    assert quality is not None and quality.prompts == len(PARITY_PROMPTS) == 8
    assert find_breach(quality, limits, manifest.patch_nums, logits=True) is None
    assert f"limit {limits.min_psnr:g} dB." in card and "Noise stood in" not in card
    assert set(manifest.files) == set(contents(folder)) - {"manifest.json"}
    assert {"torch", "onnx", "onnxruntime", "tokenizers"} <= set(manifest.tools)
    licences = json.loads((SHIPPED_MODEL / "licences.json").read_text("utf-8"))
    assert [vars(licence) for licence in manifest.licences] == licences
    for licence in licences:
        assert f"- {licence['part']}: {licence['spdx']}. {licence['attribution']}\n" in card
    assert f"target `cpu` at `{precision}`" in card
    assert 'hart_edge.load("THIS FOLDER").generate("a red heart", seed=7)' in card


def test_parameters_are_the_weights(fp32_bundle: Path, int8_bundle: Path) -> None:
    """The count is that of the model's parameters, independent of the precision."""
    counts = [{c.name: c.parameters for c in open_bundle(f).manifest.components} for f in (fp32_bundle, int8_bundle)]
    assert counts[0] == counts[1]
    assert 8_000_000 < counts[0][ComponentName.TRANSFORMER] < 9_000_000


def test_the_manifest_describes_the_calibration(int8_bundle: Path, fp16_bundle: Path) -> None:
    manifest = open_bundle(int8_bundle).manifest
    data = (int8_bundle / "calibration.json").read_bytes()
    assert manifest.calibration is not None
    assert manifest.calibration.ranges_sha256 == hashlib.sha256(data).hexdigest()
    assert manifest.calibration.prompts == len(read_prompts()) == 20
    assert "INT8 ranges: 20 prompts" in (int8_bundle / "README.md").read_text("utf-8")
    assert open_bundle(fp16_bundle).manifest.calibration is None
    assert not (fp16_bundle / "calibration.json").exists()


def test_ranges_can_be_used_again(tools: Tools, contexts: Path, tmp_path: Path) -> None:
    """With --ranges there is no calibration, and the graphs are the same byte for byte."""
    first, again = tmp_path / "first", tmp_path / "again"
    options = BuildOptions(CHECKPOINT, first, contexts=contexts, int8_scheme=Int8Scheme.STATIC)
    calibrated = build(options, tools=tools)
    labels: list[str] = []
    options = replace(options, out=again, ranges=first / "calibration.json")
    manifest = build(options, lambda event: labels.append(event) if isinstance(event, str) else None, tools=tools)
    assert not [label for label in labels if "calibrating" in label]
    assert set(contents(first)) == set(contents(again))
    assert {name for name, data in contents(first).items() if data != contents(again)[name]} == {
        "README.md",
        "manifest.json",
    }
    assert manifest.calibration == calibrated.calibration is not None


def test_int8_without_text_model_asks_for_contexts(tools: Tools, tmp_path: Path) -> None:
    labels: list[str | StepDone] = []
    with pytest.raises(BuildError, match=r"this checkpoint has no text_model/; name a file with --contexts \(npz with"):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle"), labels.append, tools=tools)
    assert not [label for label in labels if "tracing" in str(label)]  # refused at once, not after minutes
    assert list(tmp_path.iterdir()) == []


def test_int8_with_contexts(small_bundle: Path, tools: Tools, contexts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "bundle"
    steps: list[StepDone] = []
    build(
        BuildOptions(CHECKPOINT, out, contexts=contexts),
        lambda event: steps.append(event) if isinstance(event, StepDone) else None,
        tools=tools,
    )
    assert "calibrating on 2 prompts" in [step.label for step in steps]
    assert all(step.seconds >= 0 for step in steps)
    assert sum(step.size for step in steps if step.label.startswith("writing graphs")) == sum(
        path.stat().st_size for path in (out / "graphs").iterdir()
    )
    bundle = open_bundle(out)
    assert bundle.manifest.calibration is not None and bundle.manifest.calibration.prompts == 2
    assert folder_bytes(out / "graphs") < 0.5 * folder_bytes(small_bundle / "graphs")
    context, mask = tiny_context({"context_token": 12, "context_dim": 48}, "right", (5,), seed=2)
    pictures = [load(path).generate(Context(context[0], mask[0]), seed=3) for path in (small_bundle, out)]
    assert pictures[0].size == pictures[1].size == (64, 64)
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
    assert "hart_edge.Context(tokens, mask)" in (out / "README.md").read_text("utf-8")


def test_a_large_cache_is_small(tools: Tools, contexts: Path, tmp_path: Path) -> None:
    """Values are FP16 and keys INT8, in graphs and plan, and nothing else; the picture is near that with float32."""
    context, mask = tiny_context({"context_token": 12, "context_dim": 48}, "right", (5,), seed=2)
    pictures, caches = [], []
    float32, small = (Dtype.FLOAT32, Dtype.FLOAT32), (Dtype.INT8, Dtype.FLOAT16)
    for least, dtypes in ((SMALL_CACHE_FROM, float32), (0, small)):
        out = tmp_path / str(least)
        static = Int8Scheme.STATIC
        options = BuildOptions(CHECKPOINT, out, contexts=contexts, int8_scheme=static, small_cache_from=least)
        build(options, tools=tools)
        manifest = open_bundle(out).manifest
        tensors = [each for component in manifest.components for each in (*component.inputs, *component.outputs)]
        for part, dtype in zip(("key.", "value."), dtypes, strict=True):
            cache = [each for each in tensors if part in each.name]
            assert cache and all(each.dtype is dtype for each in cache)
        rest = {each.dtype for each in tensors if "key." not in each.name and "value." not in each.name}
        assert rest.isdisjoint((Dtype.INT8, Dtype.FLOAT16))
        caches.append(cache_peak(manifest.plan))
        pictures.append(np.asarray(load(out).generate(Context(context[0], mask[0]), seed=3)).astype(int))
    assert caches[0] * 3 == caches[1] * 8  # 4 + 4 bytes become 1 + 2
    assert np.abs(pictures[0] - pictures[1]).mean() < 8


@pytest.mark.parametrize("precision", [Precision.FP32, pytest.param(Precision.INT8, marks=pytest.mark.slow)])
def test_large_pictures_attend_by_one_operator_on_a_cpu(
    tools: Tools, contexts: Path, tmp_path: Path, precision: Precision
) -> None:
    """A build compares it with the reference; this compares its pictures with those of products and a softmax."""
    context, mask = tiny_context({"context_token": 12, "context_dim": 48}, "right", (5,), seed=2)
    pictures = []
    for fused_from in (0, FUSED_FROM):
        out = tmp_path / str(fused_from)
        given = contexts if precision is Precision.INT8 else None
        options = BuildOptions(CHECKPOINT, out, precision, contexts=given, int8_scheme=Int8Scheme.STATIC)
        build(replace(options, fused_from=fused_from), tools=tools)
        operators = Counter(node.op_type for node in onnx.load(out / "graphs" / "transformer.onnx").graph.node)
        blocks = read_source(CHECKPOINT).model.config.depth
        assert operators["MultiHeadAttention"] == (0 if fused_from else 2 * blocks)
        assert operators["Softmax"] == (2 * blocks if fused_from else 0)
        pictures.append(np.asarray(load(out).generate(Context(context[0], mask[0]), seed=3)).astype(int))
    assert np.abs(pictures[0] - pictures[1]).mean() < (0.1 if precision is Precision.FP32 else 8)


def test_engines_of_gpus_get_products_and_a_softmax(tools: Tools, tmp_path: Path) -> None:
    options = BuildOptions(CHECKPOINT, tmp_path / "out", Precision.FP16, Target.TENSORRT, fused_from=0)
    context = open_context(options, lambda _: None, tools)
    traced = trace(context, read(context), tmp_path)
    operators = {node.op_type for node in onnx.load(tmp_path / "transformer.onnx").graph.node}
    assert "Softmax" in operators and "MultiHeadAttention" not in operators
    assert isinstance(traced.library, LibraryInParts)  # of large pictures


def test_graphs_of_large_pictures_for_gpus_are_checked_in_parts_and_written_whole(tools: Tools, tmp_path: Path) -> None:
    found = []
    for fused_from in (0, FUSED_FROM):
        out = tmp_path / str(fused_from)
        options = BuildOptions(CHECKPOINT, out, Precision.FP16, Target.TENSORRT, portable=True, fused_from=fused_from)
        found.append((build(options, tools=tools), contents(out / "graphs")))
    (parts, of_parts), (whole, of_whole) = found
    assert of_parts == of_whole
    for one, other in zip(parts.components, whole.components, strict=True):
        assert one.max_error == pytest.approx(other.max_error, rel=0.05), one.name


def test_ranges_of_another_checkpoint(tools: Tools, int8_bundle: Path, tmp_path: Path) -> None:
    ranges = int8_bundle / "calibration.json"
    owner = json.loads(ranges.read_bytes())["weights_sha256"][:12]
    message = rf"calibration\.json: these ranges belong to weights {owner}\.\.\., this checkpoint's are [0-9a-f]{{12}}"
    with pytest.raises(BuildError, match=message):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle", ranges=ranges), tools=tools)
    assert list(tmp_path.iterdir()) == []


def test_external_weights(small_bundle: Path, tools: Tools, tmp_path: Path) -> None:
    """Weights in files beside the graphs, as models above 2 GB need, give the same picture."""
    out = tmp_path / "external"
    build(BuildOptions(CHECKPOINT, out, Precision.FP32, external_from=500_000), tools=tools)
    beside = sorted(path.name for path in (out / "graphs").glob("*.data"))
    assert beside == [f"{name}.onnx.data" for name in ("decoder", "encoder", "transformer")]
    assert (out / "graphs" / "transformer.onnx").stat().st_size < 100_000
    manifest = open_bundle(out).manifest
    for component in manifest.components:
        listed = [entry.bytes for name, entry in manifest.files.items() if name.startswith(component.file)]
        assert component.bytes == sum(listed), component.name
    before = {component.name: component.parameters for component in open_bundle(small_bundle).manifest.components}
    assert {component.name: component.parameters for component in manifest.components} == before
    context, mask = tiny_context({"context_token": 12, "context_dim": 48}, "right", (5,), seed=2)
    pictures = [load(path).generate(Context(context[0], mask[0]), seed=3) for path in (small_bundle, out)]
    assert pictures[0].tobytes() == pictures[1].tobytes()


def test_missing_licences_are_stated(small_bundle: Path) -> None:
    assert open_bundle(small_bundle).manifest.licences == ()
    assert "The checkpoint states none (licences.json)" in (small_bundle / "README.md").read_text("utf-8")


def test_random_weights_are_stated(
    build_command: BuildCommand, tools: Tools, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the name of the bundle, its card, the build and the pipeline."""
    out = tmp_path / "shape"
    arguments = ["--preset", "hart-0.7b-256", "--random-weights", "--precision", "fp32", "--out", str(out)]
    assert build_command(arguments, replace(tools, configs=small_configs)) == 0
    assert "its weights are random: good for measuring time and memory, and for no picture\n" in capsys.readouterr().out
    manifest = open_bundle(out).manifest
    assert manifest.name == "shape-random" and manifest.random
    card = (out / "README.md").read_text("utf-8")
    assert card.startswith("# shape-random\n\n**Random weights.** This bundle has the shape of a published model and ")
    assert "The weights are random numbers, and nobody's work." in card and "ask whoever made it" not in card
    context, mask = tiny_context({"context_token": 12, "context_dim": 48}, "right", (5,), seed=2)
    pipeline, given = load(out), Context(context[0], mask[0])
    message = "^the weights of bundle 'shape-random' are random: its pictures show noise"
    with pytest.warns(RandomWeightsWarning, match=message) as warned:
        image = pipeline.generate(given, seed=3)
    assert warned[0].filename == __file__
    with pytest.warns(RandomWeightsWarning, match=message):
        *_, last = pipeline.stream(given, seed=3)
    assert last.image.tobytes() == image.tobytes()
    np.savez(tmp_path / "words.npz", context=context[0], context_mask=mask[0])
    picture = str(tmp_path / "picture.png")
    assert generate(["generate", "--context", str(tmp_path / "words.npz"), "--bundle", str(out), "--out", picture]) == 0
    assert capsys.readouterr().err == (
        "warning: the weights of bundle 'shape-random' are random: its pictures show noise, and only the time and "
        "memory that they take mean anything\n"
    )


def test_other_weights_are_not_called_random(small_bundle: Path) -> None:
    assert not open_bundle(small_bundle).manifest.random
    assert "andom" not in (small_bundle / "README.md").read_text("utf-8")
    context, mask = tiny_context({"context_token": 12, "context_dim": 48}, "right", (5,), seed=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(small_bundle).generate(Context(context[0], mask[0]))


def test_guidance_out_of_range(tmp_path: Path) -> None:
    options = BuildOptions(CHECKPOINT, tmp_path / "bundle", Precision.FP32)
    for value in (-1.0, 100.5, float("nan"), float("inf")):
        with pytest.raises(BuildError, match=r"^cfg_scale: expected 0 to 100, found"):
            replace(options, settings=Settings(cfg_scale=value))


@pytest.mark.long
def test_sampling_settings_of_a_build(tmp_path: Path) -> None:
    """Those asked for, or else those of the checkpoint."""
    checkpoint = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    (checkpoint / "sampling.json").write_text('{"top_p": 0.5, "cfg_scale": 3, "smooth": false}', "utf-8")
    source = read_source(checkpoint)
    found = [source.sampling(), source.sampling(Settings(cfg_scale=0.0, top_p=0.9)), read_source(CHECKPOINT).sampling()]
    assert [(each.cfg_scale, each.top_p, each.smooth) for each in found] == [
        (3, 0.5, False), (0, 0.9, False), (4.5, 1, True),
    ]  # fmt: skip
    with pytest.raises(BuildError, match=r"^top_p: expected 0\.000001 to 1, found 0$"):
        BuildOptions(CHECKPOINT, tmp_path / "bundle", settings=Settings(top_p=0))
