"""The ONNX Runtime runner: it writes results in place, and every refusal is an EngineError that names the graph."""

import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from hart_edge.bundle.manifest import Target
from hart_edge.bundle.verify import open_bundle
from hart_edge.engines.loading import thread_count
from hart_edge.engines.onnxruntime.runner import OnnxRuntimeRunner
from hart_edge.errors import EngineError
from tests.bundle.corrupt_bundles import graph_edit
from tests.bundle.corrupt_manifests import put
from tests.bundle.make_bundle import make_bundle


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("pristine") / "tiny")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))


def decoder_arrays() -> tuple[dict[str, Any], dict[str, Any]]:
    f_hat = np.random.default_rng(0).standard_normal((2, 4, 2, 2)).astype(np.float32)
    return {"f_hat": f_hat}, {"pixels": np.zeros((2, 32, 32, 3), np.uint8), "finite": np.zeros(2, np.bool_)}


def test_outputs_are_written_in_place(pristine: Path) -> None:
    inputs, outputs = decoder_arrays()
    pixels = outputs["pixels"]
    OnnxRuntimeRunner(open_bundle(pristine)).run("decoder", inputs, outputs)
    session = onnxruntime.InferenceSession(pristine / "graphs/decoder.onnx", providers=["CPUExecutionProvider"])
    expected, finite = session.run(["pixels", "finite"], inputs)
    assert outputs["pixels"] is pixels
    np.testing.assert_array_equal(pixels, expected)
    assert finite.all() and outputs["finite"].all() and len(np.unique(pixels)) > 10


def test_outputs_that_are_not_asked_for_are_left_out(pristine: Path) -> None:
    inputs, outputs = decoder_arrays()
    del outputs["pixels"]
    OnnxRuntimeRunner(open_bundle(pristine)).run("decoder", inputs, outputs)
    assert outputs["finite"].all()


def test_a_session_is_made_once_and_when_it_is_needed(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counting(path: str, *rest: Any, **more: Any) -> Any:
        opened.append(Path(path).stem)
        return onnxruntime.InferenceSession(path, *rest, **more)

    counted = types.SimpleNamespace(**vars(onnxruntime) | {"InferenceSession": counting})
    monkeypatch.setitem(sys.modules, "onnxruntime", counted)
    runner = OnnxRuntimeRunner(open_bundle(pristine))
    assert opened == []
    for _ in range(2):
        runner.run("decoder", *decoder_arrays())
    runner.load("decoder")
    runner.load("tokens")
    assert opened == ["decoder", "tokens"]


def test_a_graph_that_the_library_refuses(folder: Path) -> None:
    def unknown(model: onnx.ModelProto) -> None:
        model.graph.node.append(helper.make_node("NoSuchOperator", ["f_hat"], ["nowhere"]))

    graph_edit(unknown)(folder)
    runner = OnnxRuntimeRunner(open_bundle(folder))
    refusal = r"^decoder: ONNX Runtime [\d.]+ refused this graph \(.*NoSuchOperator"
    with pytest.raises(EngineError, match=refusal) as caught:
        runner.run("decoder", *decoder_arrays())
    assert str(caught.value).endswith("; update onnxruntime or rebuild the bundle")


def test_a_graph_that_fails_while_running(pristine: Path) -> None:
    inputs, outputs = decoder_arrays()
    inputs["f_hat"] = np.zeros((2, 4, 3, 2), np.float32)
    failure = r"(?s)^decoder: ONNX Runtime failed while running \(.*inputs were f_hat \(2, 4, 3, 2\)"
    with pytest.raises(EngineError, match=failure):
        OnnxRuntimeRunner(open_bundle(pristine)).run("decoder", inputs, outputs)


@pytest.mark.parametrize("given", [{"latent": np.zeros((2, 4, 2, 2), np.float32)}, {}])
def test_inputs_that_the_graph_does_not_have(pristine: Path, given: dict[str, Any]) -> None:
    with pytest.raises(EngineError, match=r"^decoder: ONNX Runtime failed while running"):
        OnnxRuntimeRunner(open_bundle(pristine)).run("decoder", given, decoder_arrays()[1])


def test_without_the_library(pristine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(pristine)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        EngineError, match=r"^this bundle was built for cpu: onnxruntime is not .*; pip install 'hart-edge\[cpu\]'$"
    ):
        OnnxRuntimeRunner(bundle)


def test_a_library_without_the_targets_provider(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("target", "name", value="cuda")(folder)
    bundle = open_bundle(folder)
    fake = types.SimpleNamespace(
        __version__="1.99", get_available_providers=lambda: ["AzureExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    with pytest.raises(EngineError) as caught:
        OnnxRuntimeRunner(bundle, target=Target.CUDA)
    assert str(caught.value) == (
        "this bundle was built for cuda: expected CUDAExecutionProvider in ONNX Runtime 1.99, found "
        "AzureExecutionProvider, CPUExecutionProvider; pip install 'hart-edge[gpu]' or build for cpu"
    )


def test_threads_are_passed_on_and_sleep_when_idle(pristine: Path) -> None:
    """Spinning threads of one session, while the next one runs, made pictures five times slower."""
    bundle = open_bundle(pristine)
    options = OnnxRuntimeRunner(bundle, threads=3)._options
    assert options.intra_op_num_threads == 3
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert OnnxRuntimeRunner(bundle)._options.intra_op_num_threads == 0  # 0: ONNX Runtime chooses


@pytest.mark.parametrize("threads", [None, 1, 1024, np.int64(2)])
def test_thread_counts(threads: Any) -> None:
    assert thread_count(threads) == threads
    assert type(thread_count(threads)) in (int, type(None))


@pytest.mark.parametrize("threads", [0, -1, 1025, 2.0, "2", True, 10**12])
def test_wrong_thread_counts_are_refused(threads: Any) -> None:
    with pytest.raises(EngineError) as caught:
        thread_count(threads)
    assert str(caught.value) == f"threads: expected an integer from 1 to 1024, or None, found {threads!r}"


def test_a_path_that_is_not_utf_8(pristine: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pristine, tmp_path / os.fsdecode(b"odd \xff"))
    for graph in ("decoder", "text_model"):  # text_model has external weights
        OnnxRuntimeRunner(open_bundle(folder)).load(graph)
