"""Builds that fail, or replace a bundle: nothing incomplete gets the name, and an earlier bundle survives."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from hart_edge.bundle.manifest import Precision
from hart_edge.bundle.settings import Settings
from hart_edge.bundle.verify import open_bundle
from hart_edge.bundle.writer import BundleWriter, write_bundle
from hart_edge.errors import BuildError, EngineError
from hart_edge.export.chain import build
from hart_edge.export.graph_module import GraphModule
from hart_edge.export.options import BuildOptions
from hart_edge.export.tools import Tools
from tests.bundle.make_bundle import make_no_bundle
from tests.export.small_checkpoint import CHECKPOINT, contents


def test_a_bundle_is_replaced(small_bundle: Path, tools: Tools, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(small_bundle, out)
    (out / "stray.txt").write_text("of the earlier build")
    build(BuildOptions(CHECKPOINT, out, Precision.FP32, settings=Settings(cfg_scale=2.5)), tools=tools)
    assert open_bundle(out).manifest.sampling.cfg_scale == 2.5
    assert not (out / "stray.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_an_out_path_that_is_no_bundle_is_left_alone(tmp_path: Path, kind: str) -> None:
    out, message = make_no_bundle(tmp_path, kind)
    before = contents(tmp_path)
    with pytest.raises(BuildError, match=message):
        build(BuildOptions(CHECKPOINT, out, Precision.FP32))
    assert contents(tmp_path) == before


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


Fail = Callable[..., Any]  # raises


def half_saved(fail: Fail) -> Fail:
    def save(model: onnx.ModelProto, path: Path, *_: object) -> None:
        data = model.SerializeToString()
        path.write_bytes(data[: len(data) // 2])
        fail()

    return save


def unfinished(method: str, fail: Fail) -> Callable[[Path], AbstractContextManager[BundleWriter]]:
    """A write_bundle whose writer fails in the given method."""

    @contextmanager
    def write(final: Path) -> Iterator[BundleWriter]:
        with write_bundle(final) as writer:
            yield type("Failing", (BundleWriter,), {method: fail})(writer.folder)

    return write


FAILING: dict[str, Callable[[Fail], dict[str, Fail]]] = {  # what fails -> the tools that make it fail
    "the first traced graph": lambda fail: {"trace": fail},
    "the first graph": lambda fail: {"save": fail},
    "half of a graph": lambda fail: {"save": half_saved(fail)},
    "constants.bin": lambda fail: {"write_bundle": unfinished("constants", fail)},
    "the manifest": lambda fail: {"write_bundle": unfinished("finish", fail)},
}


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("failing", FAILING)
def test_disk_full(small_bundle: Path, tools: Tools, tmp_path: Path, failing: str, earlier: bool) -> None:
    out = tmp_path / "bundle"
    if earlier:
        shutil.copytree(small_bundle, out)
    before = contents(tmp_path)
    tools = replace(tools, **FAILING[failing](no_space))
    message = rf"^{re.escape(str(out))}: the disk is full \(.*No space left on device\); nothing was left behind"
    with pytest.raises(BuildError, match=message):
        build(BuildOptions(CHECKPOINT, out, Precision.FP32), tools=tools)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["bundle"] if earlier else [])


@pytest.mark.parametrize("failing", ["the first graph", "the manifest"])
def test_interrupted(small_bundle: Path, tools: Tools, tmp_path: Path, failing: str) -> None:
    out = tmp_path / "bundle"
    shutil.copytree(small_bundle, out)
    before = contents(tmp_path)
    tools = replace(tools, **FAILING[failing](interrupt))
    with pytest.raises(KeyboardInterrupt):
        build(BuildOptions(CHECKPOINT, out, Precision.FP32), tools=tools)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_interrupted_while_calibrating(tools: Tools, contexts: Path, tmp_path: Path) -> None:
    def interrupt_when_it_begins(event: object) -> None:
        if event == "calibrating on 2 prompts":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle", contexts=contexts), interrupt_when_it_begins, tools=tools)
    assert [path.name for path in tmp_path.iterdir()] == ["given"]


def test_a_graph_that_the_engine_refuses(tools: Tools, tmp_path: Path) -> None:
    def trace_broken(module: GraphModule, path: Path) -> None:
        tools.trace(module, path)
        if module.name == "embed":
            model = onnx.load(path)
            model.graph.node[0].op_type = "NoSuchOperator"
            onnx.save_model(model, path)

    with pytest.raises(EngineError, match=r"^embed: ONNX Runtime .* refused this graph .*NoSuchOperator"):
        build(BuildOptions(CHECKPOINT, tmp_path / "bundle", Precision.FP32), tools=replace(tools, trace=trace_broken))
    assert list(tmp_path.iterdir()) == []
