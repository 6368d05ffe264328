"""Whole builds of the shipped model: what a bundle holds at each precision, and that its own statements agree."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import calib.graph_files
import export.build
from calib.prompts import read_prompts
from export.build import SHIPPED_MODEL, BuildOptions, StepDone, build, bundle_name, read_contexts, read_licences
from export.bundle import staged_folder
from export.parity import TOLERANCE
from runtime.bundle import open_bundle
from runtime.errors import BuildError, CheckpointError, EngineError
from runtime.manifest import ComponentName, Precision, Target
from runtime.pipeline import Context, load
from tests.conftest import GOLDEN, BuildOnce
from tests.hart_edge.tiny_hart import tiny_context

CHECKPOINT = GOLDEN / "adaln"  # 12 context tokens of 48, no text model
INT8_COMPONENTS = {"text_model", "context", "transformer", "residual", "decoder", "encoder"}


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder, hidden ones too, and its hash."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="session")
def small_bundle(build_once: BuildOnce) -> Path:
    """A golden checkpoint at fp32; its graphs are traced by now, so building it again takes a second."""
    return build_once(CHECKPOINT, Precision.FP32)


@pytest.fixture
def contexts(tmp_path: Path) -> Path:
    """Two calibration contexts of that checkpoint."""
    context, mask = tiny_context({"context_token": 12, "context_dim": 48}, "right", (7, 3), seed=1)
    path = tmp_path / "given" / "contexts.npz"
    path.parent.mkdir()
    np.savez(path, context=context, context_mask=mask)
    return path


# --- the shipped model


def test_sizes(fp32_bundle: Path, fp16_bundle: Path, int8_bundle: Path) -> None:
    whole = folder_bytes(fp32_bundle)
    assert folder_bytes(int8_bundle) <= 0.35 * whole
    assert 0.45 * whole <= folder_bytes(fp16_bundle) <= 0.6 * whole


@pytest.mark.parametrize("precision", list(Precision))
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
        assert 0 <= component.max_error <= TOLERANCE[component.precision], component.name
        assert component.worst_tensor in {tensor.name for tensor in component.outputs}, component.name
        assert component.bytes == manifest.files[component.file].bytes
        row = f"| {component.name} | {component.precision} | {component.form} | {component.parameters:,} | "
        assert f"{row}{component.bytes:,} | {component.max_error:.1e} | {component.worst_tensor} |\n" in card
    total = sum(component.bytes for component in manifest.components)
    assert f"{total:,} |" in card
    assert set(manifest.files) == set(contents(folder)) - {"manifest.json"}
    assert {"torch", "onnx", "onnxruntime"} <= set(manifest.tools)
    licences = json.loads((SHIPPED_MODEL / "licences.json").read_text("utf-8"))
    assert [vars(licence) for licence in manifest.licences] == licences
    for licence in licences:
        assert f"- {licence['part']}: {licence['spdx']}. {licence['attribution']}\n" in card
    assert f"target `cpu` at `{precision}`" in card
    assert 'hart_edge.load("THIS FOLDER").generate("a red heart", seed=7)' in card


def test_parameters_are_the_weights(fp32_bundle: Path, int8_bundle: Path) -> None:
    """The count is of the model, whatever the precision holds it in."""
    counts = [{c.name: c.parameters for c in open_bundle(f).manifest.components} for f in (fp32_bundle, int8_bundle)]
    assert counts[0] == counts[1]
    assert 8_000_000 < counts[0][ComponentName.TRANSFORMER] < 9_000_000


def test_calibration_is_stated(int8_bundle: Path, fp16_bundle: Path) -> None:
    manifest = open_bundle(int8_bundle).manifest
    data = (int8_bundle / "calibration.json").read_bytes()
    assert manifest.calibration is not None
    assert manifest.calibration.ranges_sha256 == hashlib.sha256(data).hexdigest()
    assert manifest.calibration.prompts == len(read_prompts()) == 20
    assert "INT8 ranges: 20 prompts" in (int8_bundle / "README.md").read_text("utf-8")
    assert open_bundle(fp16_bundle).manifest.calibration is None
    assert not (fp16_bundle / "calibration.json").exists()


def test_ranges_can_be_used_again(traced_once: None, int8_bundle: Path, tmp_path: Path) -> None:
    """--ranges: no calibration, the same graphs byte for byte."""
    labels: list[str] = []
    options = BuildOptions(SHIPPED_MODEL, tmp_path / "again", ranges=int8_bundle / "calibration.json")
    manifest = build(options, lambda event: labels.append(event) if isinstance(event, str) else None)
    assert not [label for label in labels if "calibrating" in label]
    first, again = contents(int8_bundle), contents(tmp_path / "again")
    assert {name for name in first if first[name] != again[name]} == {"README.md", "manifest.json"}
    assert manifest.calibration == open_bundle(int8_bundle).manifest.calibration


# --- a checkpoint without a text model


def test_int8_without_text_model_asks_for_contexts(traced_once: None, tmp_path: Path) -> None:
    labels: list[str | StepDone] = []
    with pytest.raises(BuildError, match=r"this checkpoint has no text_model/; name a file with --contexts \(npz with"):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle"), labels.append)
    assert not [label for label in labels if "tracing" in str(label)]  # said at once, not after minutes
    assert list(tmp_path.iterdir()) == []


def test_int8_with_contexts(small_bundle: Path, contexts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "bundle"
    steps: list[StepDone] = []
    build(
        BuildOptions(CHECKPOINT, out, contexts=contexts),
        lambda event: steps.append(event) if isinstance(event, StepDone) else None,
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


def test_ranges_of_another_checkpoint(traced_once: None, int8_bundle: Path, tmp_path: Path) -> None:
    ranges = int8_bundle / "calibration.json"
    owner = json.loads(ranges.read_bytes())["weights_sha256"][:12]
    message = rf"calibration\.json: these ranges belong to weights {owner}\.\.\., this checkpoint's are [0-9a-f]{{12}}"
    with pytest.raises(BuildError, match=message):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle", ranges=ranges))
    assert list(tmp_path.iterdir()) == []


def write_npz(path: Path, **arrays: Any) -> None:
    np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "not an npz with context and context_mask .*No such file"),
        (lambda path: path.write_bytes(b""), "not an npz"),
        (lambda path: path.write_bytes(b"PK\x03\x04 and no more"), "not an npz"),
        (lambda path: np.save(path.open("wb"), np.zeros(3)), "not an npz"),
        (lambda path: write_npz(path, context=np.zeros((1, 12, 48))), "not an npz .*context_mask"),
        (lambda path: write_npz(path, context=np.array([{}]), context_mask=np.zeros((1, 12))), "not an npz"),
        (
            lambda path: write_npz(path, context=np.zeros((2, 12, 40)), context_mask=np.ones((2, 12))),
            r"expected context \(N, 12, 48\) and context_mask \(N, 12\), found \(2, 12, 40\) and \(2, 12\)",
        ),
        (
            lambda path: write_npz(path, context=np.zeros((0, 12, 48)), context_mask=np.ones((0, 12))),
            r"found \(0, 12, 48\)",
        ),
    ],
)
def test_contexts_that_are_none(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "contexts.npz"
    make(path)
    with pytest.raises(BuildError, match=f"^{re.escape(str(path))}: .*{message}"):
        read_contexts(path, 12, 48)


# --- weights outside the graph


def test_external_weights(small_bundle: Path, tmp_path: Path) -> None:
    """As for models past 2 GB: weights beside the graphs, the same picture."""
    out = tmp_path / "external"
    build(BuildOptions(CHECKPOINT, out, Precision.FP32, external_from=500_000))
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


# --- what goes wrong


def test_a_bundle_is_replaced(small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(small_bundle, out)
    (out / "stray.txt").write_text("of the earlier build")
    build(BuildOptions(CHECKPOINT, out, Precision.FP32, cfg_scale=2.5))
    assert open_bundle(out).manifest.sampling.cfg_scale == 2.5
    assert not (out / "stray.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_is_not_a_bundle_is_left_alone(tmp_path: Path, kind: str) -> None:
    out = tmp_path / "holiday"
    if kind == "folder":
        out.mkdir()
        (out / "photo.jpg").write_bytes(b"mine")
    else:
        out.write_bytes(b"mine")
    before = contents(tmp_path)
    message = rf"^{re.escape(str(out))}: exists and is not a bundle, so it is left alone; choose another --out"
    with pytest.raises(BuildError, match=message):
        build(BuildOptions(CHECKPOINT, out, Precision.FP32))
    assert contents(tmp_path) == before


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


WRITERS = {
    "the first graph": (export.build, "save_graph"),
    "onnx itself": (calib.graph_files.onnx, "save_model"),
    "constants.bin": (export.build, "write_constants"),
    "the card": (export.build, "write_card"),
    "the manifest": (export.build, "to_json"),
}


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("writer", WRITERS)
def test_disk_full(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, writer: str, earlier: bool
) -> None:
    out = tmp_path / "bundle"
    if earlier:
        shutil.copytree(small_bundle, out)
    before = contents(tmp_path)
    monkeypatch.setattr(*WRITERS[writer], no_space)
    message = rf"^{re.escape(str(out))}: the disk is full \(.*No space left on device\); nothing was left behind"
    with pytest.raises(BuildError, match=message):
        build(BuildOptions(CHECKPOINT, out, Precision.FP32))
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["bundle"] if earlier else [])


@pytest.mark.parametrize("writer", ["the first graph", "the manifest"])
def test_interrupted(small_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, writer: str) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(small_bundle, out)
    before = contents(tmp_path)
    monkeypatch.setattr(*WRITERS[writer], interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(BuildOptions(CHECKPOINT, out, Precision.FP32))
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_interrupted_while_calibrating(
    small_bundle: Path, contexts: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(export.build.RangeCollector, "end_prompt", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle", contexts=contexts))
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


@pytest.mark.parametrize("failing", ["first", "second"])
def test_earlier_bundle_survives_a_failing_rename(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, failing: str
) -> None:
    """Between the two renames no bundle has the name; if the second fails, the earlier one gets it back."""
    final = tmp_path / "bundle"
    final.mkdir()
    (final / "manifest.json").write_text("earlier")
    rename, calls = Path.rename, []

    def failing_rename(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == (1 if failing == "first" else 2):
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing_rename)
    with pytest.raises(BuildError, match="the bundle cannot be written"), staged_folder(final) as folder:
        (folder / "manifest.json").write_text("new")
    assert contents(tmp_path) == {"bundle/manifest.json": hashlib.sha256(b"earlier").hexdigest()}
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(error, "not here")

    monkeypatch.setattr("export.bundle.tempfile.mkdtemp", refuse)
    message = r"bundle: the bundle cannot be written \(\[Errno \d+\] not here\); choose another --out"
    with pytest.raises(BuildError, match=message):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle", Precision.FP32))
    assert list(tmp_path.iterdir()) == []


def test_out_below_a_file_or_too_long(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    for out in (tmp_path / "file" / "bundle", tmp_path / ("x" * 300)):
        with pytest.raises(BuildError, match=r"the bundle cannot be written .*; choose another --out"):
            build(BuildOptions(CHECKPOINT, out, Precision.FP32))
    assert contents(tmp_path) == {"file": hashlib.sha256(b"mine").hexdigest()}


def test_other_errors_leave_nothing_either(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), staged_folder(tmp_path / "deep" / "bundle") as folder:
        (folder / "half").write_text("written")
        _ = 1 / 0
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("target", [Target.TENSORRT, Target.TENSORRT_RTX])
def test_targets_of_later_versions(tmp_path: Path, target: Target) -> None:
    message = f"^target {target}: this version builds for cpu and cuda; choose one of them$"
    with pytest.raises(BuildError, match=message):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle", target=target))
    assert list(tmp_path.iterdir()) == []


def test_missing_checkpoint(tmp_path: Path) -> None:
    messages = {"absent": "no such checkpoint folder", "empty": r"parts tokenizer/ and llm/ .*, found nothing"}
    for name, message in messages.items():
        folder = tmp_path / name
        if name == "empty":
            folder.mkdir()
        with pytest.raises(CheckpointError, match=message):
            build(BuildOptions(folder, tmp_path / "bundle", Precision.FP32))
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"not readable as UTF-8 text \(.*No such file"),
        (b"", "expected at least one prompt, found none; write one a line"),
        (b"# nothing but remarks\n\n   \n", "expected at least one prompt, found none"),
        ("ein hübscher Fuchs".encode("latin-1"), r"not readable as UTF-8 text \(.*; name a file with one prompt a"),
    ],
)
def test_prompts_that_are_none(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "prompts.txt"
    if content is not None:
        path.write_bytes(content)
    labels: list[str | StepDone] = []
    with pytest.raises(BuildError, match=f"^{re.escape(str(path))}: {message}"):
        build(BuildOptions(SHIPPED_MODEL, tmp_path / "bundle", prompts=path), labels.append)
    assert not [label for label in labels if "tracing" in str(label)]
    assert not (tmp_path / "bundle").exists()


def test_prompts(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffa fox\r\n\n# remark\n  ein hübscher Fuchs  \n".encode())
    assert read_prompts(path) == ["a fox", "ein hübscher Fuchs"]


@pytest.mark.parametrize(
    "content",
    ["{", '{"part": "x"}', '[{"part": "x"}]', '[{"part": "x", "spdx": 3, "attribution": "y"}]', "[1]", "null", "\xff"],
)
def test_malformed_licences(tmp_path: Path, content: str) -> None:
    (tmp_path / "licences.json").write_bytes(content.encode("latin-1"))
    message = r"/licences\.json: expected a list of part, spdx and attribution \(.+\); mend it$"
    with pytest.raises(CheckpointError, match=message):
        read_licences(tmp_path)


def test_licences_are_read(tmp_path: Path) -> None:
    assert read_licences(tmp_path) == ()
    (tmp_path / "licences.json").write_text('[{"part": "weights", "spdx": "MIT", "attribution": "Zoë"}]', "utf-8")
    assert [vars(licence) for licence in read_licences(tmp_path)] == [
        {"part": "weights", "spdx": "MIT", "attribution": "Zoë"}
    ]


def test_no_licences_is_said(small_bundle: Path) -> None:
    assert open_bundle(small_bundle).manifest.licences == ()
    assert "The checkpoint states none (licences.json)" in (small_bundle / "README.md").read_text("utf-8")


def test_a_graph_that_the_engine_refuses(small_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trace = export.build.export_graph

    def trace_broken(module: export.build.GraphModule) -> onnx.ModelProto:
        model = trace(module)
        if module.name == "embed":
            model.graph.node[0].op_type = "NoSuchOperator"
        return model

    monkeypatch.setattr(export.build, "export_graph", trace_broken)
    with pytest.raises(EngineError, match=r"^embed: ONNX Runtime .* refused it .*NoSuchOperator"):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle", Precision.FP32))
    assert list(tmp_path.iterdir()) == []


def test_bundle_name() -> None:
    names = {"hart-emoji-int8": "hart-emoji-int8", "my bundle (2)": "my-bundle--2-", "..": "bundle", ".": "bundle"}
    for given, expected in (names | {"bundles/ü": "bundle", "x" * 200: "x" * 100}).items():
        assert bundle_name(Path(given)) == expected, given


def test_guidance_out_of_range(tmp_path: Path) -> None:
    options = BuildOptions(CHECKPOINT, tmp_path / "bundle", Precision.FP32)
    for value in (-1.0, 100.5, float("nan"), float("inf")):
        with pytest.raises(BuildError, match=r"^cfg_scale: expected 0 to 100, found"):
            replace(options, cfg_scale=value)
