"""Builds that fail or replace something: nothing half-written keeps the name, and what was there survives."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

import onnx
import pytest

import hart_edge.calib.calibrate.collector
import hart_edge.calib.graph_files
import hart_edge.export.chain
from hart_edge.bundle.manifest import Precision
from hart_edge.bundle.settings import Settings
from hart_edge.bundle.verify import open_bundle
from hart_edge.bundle.writer import BundleWriter
from hart_edge.errors import BuildError, EngineError
from hart_edge.export.chain import BuildOptions, build
from hart_edge.export.graphs import GraphModule
from tests.export.small_checkpoint import CHECKPOINT, contents


def test_a_bundle_is_replaced(small_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(small_bundle, out)
    (out / "stray.txt").write_text("of the earlier build")
    build(BuildOptions(CHECKPOINT, out, Precision.FP32, settings=Settings(cfg_scale=2.5)))
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
    "constants.bin": (BundleWriter, "constants"),
    "the card": (hart_edge.export.chain, "write_card"),
    "the manifest": (BundleWriter, "finish"),
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
