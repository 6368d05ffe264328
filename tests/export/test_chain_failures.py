"""Builds that fail or replace something: nothing half-written keeps the name, and what was there survives."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
from pathlib import Path

import onnx
import pytest

import hart_edge.calib.calibrate.collector
import hart_edge.calib.graph_files
import hart_edge.export.chain
from hart_edge.bundle.manifest import Precision
from hart_edge.bundle.verify import open_bundle
from hart_edge.bundle.writer import staged_folder
from hart_edge.errors import BuildError, EngineError
from hart_edge.export.chain import BuildOptions, build
from hart_edge.export.graphs import GraphModule
from tests.export.small_checkpoint import CHECKPOINT, contents


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
    "the first traced graph": (hart_edge.export.chain, "export_graph"),
    "the first graph": (hart_edge.export.chain, "save_graph"),
    "onnx itself": (hart_edge.calib.graph_files.onnx, "save_model"),
    "constants.bin": (hart_edge.export.chain, "write_constants"),
    "the card": (hart_edge.export.chain, "write_card"),
    "the manifest": (hart_edge.export.chain, "to_json"),
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
    monkeypatch.setattr(hart_edge.calib.calibrate.collector.Collector, "end_prompt", interrupt)
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

    monkeypatch.setattr("hart_edge.bundle.writer.tempfile.mkdtemp", refuse)
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


def test_a_graph_that_the_engine_refuses(small_bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trace = hart_edge.export.chain.export_graph

    def trace_broken(module: GraphModule, path: Path) -> None:
        trace(module, path)
        if module.name == "embed":
            model = onnx.load(path)
            model.graph.node[0].op_type = "NoSuchOperator"
            onnx.save_model(model, path)

    monkeypatch.setattr(hart_edge.export.chain, "export_graph", trace_broken)
    with pytest.raises(EngineError, match=r"^embed: ONNX Runtime .* refused this graph .*NoSuchOperator"):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle", Precision.FP32))
    assert list(tmp_path.iterdir()) == []
