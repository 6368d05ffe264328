"""Whole pictures through the TensorRT runner, on a fake device made of this machine's memory and ONNX Runtime.

Only the arithmetic inside an engine would differ on a GPU; addresses, shapes, profiles, order, waits, captures and
memory are handled by the real code.
"""

import dataclasses
import gc
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hart_edge.bundle.manifest import Precision, parse, to_json
from hart_edge.bundle.target import Target
from hart_edge.engines.loading import load
from hart_edge.engines.tensorrt.runner import TensorRTRunner
from hart_edge.errors import BundleError, EngineError
from hart_edge.runtime.context import Context
from hart_edge.runtime.pipeline import Pipeline
from tests.bundle.make_bundle import file_entry
from tests.conftest import GOLDEN, BuildOnce
from tests.engines.tensorrt.engine_bundle import install, make_engine_bundle
from tests.engines.tensorrt.fake_cuda import FakeCuda
from tests.engines.tensorrt.fake_tensorrt import FakeTensorRT, engine_bytes

TARGETS = (Target.TENSORRT, Target.TENSORRT_RTX)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    return install(monkeypatch)


def runner_of(pipeline: Pipeline) -> TensorRTRunner:
    assert isinstance(pipeline.runner, TensorRTRunner)
    return pipeline.runner


def pictures(pipeline: Pipeline, count: int = 3) -> list[bytes]:
    """Each as that of a new prompt."""
    found = []
    for seed in range(count):
        pipeline.forget()
        found.append(pipeline.generate("w1 w2", seed=seed).tobytes())
    return found


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("streams", [True, False])
def test_the_same_pictures_as_onnx_runtime(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: Target, low_memory: bool, streams: bool
) -> None:
    install(monkeypatch, target, streams=streams, validity=streams)
    bundle = make_engine_bundle(words, tmp_path / "engines", target)
    found = pictures(load(bundle, low_memory=low_memory))
    assert found == pictures(load(words, threads=1)) and len(set(found)) == 3


@pytest.mark.parametrize("flavour", ["adaln", "plain"])
def test_the_same_pictures_of_a_transformer(
    build_once: BuildOnce, tmp_path: Path, fake: FakeTensorRT, flavour: str
) -> None:
    """Caches, rotary tables, guidance, residual steps: every graph of a checkpoint, captured in the second picture."""
    graphs = build_once(GOLDEN / flavour, Precision.FP32)
    expected, found = load(graphs, threads=1), load(make_engine_bundle(graphs, tmp_path / "engines"))
    m = found.manifest
    random = np.random.default_rng(0)
    tokens = random.standard_normal((m.context_tokens, m.context_dim)).astype(np.float32)
    context = Context(tokens, np.arange(m.context_tokens) < 5)
    for seed in range(3):  # a context that is given is not kept
        pair = [one.generate(context, seed=seed).tobytes() for one in (expected, found)]
        assert pair[0] == pair[1]
    assert runner_of(found).captured() == [None, *range(len(m.patch_nums)), None]


def test_previews_and_an_abandoned_stream(words: Path, engines: Path, fake: FakeTensorRT) -> None:
    device, host = load(engines), load(words, threads=1)
    left = device.stream("w3", seed=1)
    next(left)
    left.close()
    events, expected = list(device.stream("w1", seed=4)), list(host.stream("w1", seed=4))
    device.generate("w5", seed=9)  # a preview shows its own picture, whatever was drawn since
    assert [event.preview().tobytes() for event in events] == [event.preview().tobytes() for event in expected]


def test_nothing_is_copied_between_graphs(engines: Path, fake: FakeTensorRT) -> None:
    pipeline = load(engines)
    pictures(pipeline, 1)
    fake.cuda.log.clear()
    pictures(pipeline, 1)
    steps = ["transformer", "tokens", "latent"]
    captured = [f"captured {name}" for name in steps]
    assert fake.cuda.log == [
        "upload", "captured text_model", "launch",
        "download", "wait",  # the context, which is kept
        *["upload"] * 3, *captured, "launch",
        *["upload"] * 2, *captured, "launch",
        "captured decoder", "launch",
        "download", "wait", "download", "wait",  # pixels and finite
    ]  # fmt: skip
    fake.cuda.log.clear()
    pictures(pipeline, 1)
    assert fake.cuda.log == [
        "upload", "launch", "download", "wait", *["upload"] * 3, "launch", *["upload"] * 2, "launch", "launch",
        "download", "wait", "download", "wait",
    ]  # fmt: skip
    fake.cuda.log.clear()
    pipeline.generate("w1 w2", seed=1)  # a prompt that is known: its context goes up, and no text model runs
    assert fake.cuda.log == [
        "upload", *["upload"] * 3, "launch", *["upload"] * 2, "launch", "launch",
        "download", "wait", "download", "wait",
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["not_capturable", "spoils_capture"])
def test_a_scale_that_cannot_be_captured_runs_step_by_step(
    words: Path, engines: Path, fake: FakeTensorRT, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    getattr(fake, how).add("tokens")
    pipeline = load(engines)
    with caplog.at_level("INFO", "hart_edge.engines.tensorrt.capture"):
        assert pictures(pipeline) == pictures(load(words, threads=1))
    assert runner_of(pipeline).captured() == [None, None]  # the steps before and after the scales
    assert ("cannot be a CUDA graph: " in caplog.text) == (how == "spoils_capture")


def test_values_that_decide_shapes_are_read_on_the_host(words: Path, engines: Path, fake: FakeTensorRT) -> None:
    fake.on_host.add("top_k")
    pipeline = load(engines)
    expected = load(words, threads=1)
    for top_k in (1, 6, None):
        pipeline.forget()
        pair = [one.generate("w1", seed=3, top_k=top_k).tobytes() for one in (pipeline, expected)]
        assert pair[0] == pair[1]
    assert runner_of(pipeline).captured() == [None, None]


def test_constants_that_decide_shapes_do_not_prevent_capture(words: Path, engines: Path, fake: FakeTensorRT) -> None:
    """Each scale has its own constants, and no picture changes them."""
    fake.on_host.add("level")
    pipeline = load(engines)
    assert pictures(pipeline) == pictures(load(words, threads=1))
    assert runner_of(pipeline).captured() == [None, 0, 1, None]


def test_a_shape_value_that_was_uploaded_before(engines: Path, fake: FakeTensorRT) -> None:
    """It happens where a later graph is the first whose shapes depend on the value."""
    pipeline = load(engines)
    next(pipeline.stream("w1", cfg_scale=2.5))  # scale 1 has yet to read it
    assert runner_of(pipeline)._host_value("later", "cfg_scale", "cfg_scale").tolist() == [2.5]


def test_a_value_that_another_engine_computes_cannot_decide_a_shape(engines: Path, fake: FakeTensorRT) -> None:
    fake.on_host.add("f_hat_before")
    fake.on_host.add("latent")
    with pytest.raises(
        EngineError, match="latent, scale 0: a shape depends on 'latent', which another engine computes; rebuild"
    ):
        load(engines).generate("w1")


def test_low_memory_opens_engines_again_and_keeps_fewer_open(engines: Path, fake: FakeTensorRT) -> None:
    pipeline = load(engines, low_memory=True)
    pictures(pipeline, 1)
    assert fake.opened == ["text_model", "transformer", "tokens", "latent", "decoder"]
    assert runner_of(pipeline)._engines == {}
    pictures(pipeline, 1)
    assert fake.opened[5:] == fake.opened[:5]
    pipeline = load(engines)
    pictures(pipeline, 2)
    assert fake.opened[10:] == fake.opened[:5]


def test_loading_ahead_opens_every_engine_once(engines: Path, fake: FakeTensorRT) -> None:
    pipeline = load(engines)
    runner_of(pipeline).load()
    assert fake.opened == ["text_model", "transformer", "tokens", "latent", "decoder"]
    pictures(pipeline, 1)
    assert len(fake.opened) == 5
    assert runner_of(pipeline).memory() == {"buffers": 5120, "activations": 1000}


@pytest.mark.long
def test_closing_the_runner_frees_its_memory(engines: Path, fake: FakeTensorRT) -> None:
    pipeline = load(engines)
    pictures(pipeline, 1)
    pipeline.decode(np.zeros((1, 4, 2, 2), np.float32))
    assert fake.cuda.used() == 5120 + 1000
    del pipeline
    gc.collect()
    assert fake.cuda.used() == 0


def test_bindings_survive_a_larger_activation_block(words: Path, tmp_path: Path, fake: FakeTensorRT) -> None:
    """A later engine needs more memory than those before it, so their contexts move to a new block."""
    bundle = make_engine_bundle(words, tmp_path / "engines")
    file = bundle / "engines" / "decoder.engine"
    shape = {"f_hat": [1, 4, 2, 2]}
    rewrite(bundle, file, engine_bytes(words / "graphs" / "decoder.onnx", [shape], activations=5000))
    pipeline = load(bundle)
    assert pictures(pipeline) == pictures(load(words, threads=1))
    assert runner_of(pipeline).memory()["activations"] == 5000


def rewrite(bundle: Path, file: Path, data: bytes) -> None:
    """Replace an engine, and its entry in the manifest."""
    file.write_bytes(data)
    manifest = parse((bundle / "manifest.json").read_bytes())
    name = file.relative_to(bundle).as_posix()
    files = {**manifest.files, name: file_entry(file)}
    (bundle / "manifest.json").write_bytes(to_json(dataclasses.replace(manifest, files=files)))


# Refusals.


def test_an_altered_engine_is_refused_before_anything_is_opened(
    words: Path, tmp_path: Path, fake: FakeTensorRT
) -> None:
    bundle = make_engine_bundle(words, tmp_path / "engines")
    file = bundle / "engines" / "tokens.engine"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(BundleError, match=r"engines/tokens.engine: expected sha256 .*: the file was altered; copy the"):
        load(bundle)
    assert fake.opened == []


@pytest.mark.parametrize(
    ("needs", "message"),
    [
        ({"architectures": ("sm_75",)}, "engines built for sm_75, found a GPU of sm_89; build the engines for this"),
        ({"version": "1.6.0.1"}, "engines built with TensorRT-RTX: expected 1.6.0.1, found 1.7.1.116; build"),
        (
            {"version": "2.0.0.1"},
            "engines built with TensorRT-RTX 2.0.0.1, found TensorRT-RTX 1.7.1.116: engines do not",
        ),
        ({"platform": "windows-aarch64"}, "engines built for windows-aarch64, found a machine of "),
    ],
)
def test_engines_of_another_machine_are_refused_from_the_manifest(
    words: Path, tmp_path: Path, fake: FakeTensorRT, needs: dict[str, Any], message: str
) -> None:
    bundle = make_engine_bundle(words, tmp_path / "engines", **needs)
    with pytest.raises(EngineError, match=message):
        load(bundle)
    assert fake.opened == [] and fake.cuda.used() == 0


def test_rtx_engines_on_a_jetson(engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, cuda=FakeCuda((8, 7)))
    with pytest.raises(
        EngineError, match=r"TensorRT-RTX runs on desktop RTX GPUs .*, found sm_87 \(Jetson Orin\); build"
    ):
        load(engines)


def test_a_bundle_of_graphs_for_tensorrt(words: Path, tmp_path: Path, fake: FakeTensorRT) -> None:
    bundle = tmp_path / "portable"
    shutil.copytree(words, bundle)
    text = (bundle / "manifest.json").read_text().replace('"name": "cpu"', '"name": "tensorrt-rtx"')
    (bundle / "manifest.json").write_text(text)
    with pytest.raises(EngineError, match="holds graphs for tensorrt-rtx, no engines; build them on this machine with"):
        load(bundle)


def test_too_little_memory_is_found_before_anything_is_allocated(
    engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch, cuda=FakeCuda(memory=5000))
    message = r"not enough memory on the GPU: expected [0-9.]+ kB for engines and buffers, found 5\.0 kB free"
    with pytest.raises(EngineError, match=message):
        load(engines)
    assert fake.opened == [] and fake.cuda.used() == 0


def test_too_little_memory_for_activations(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, cuda=FakeCuda(memory=2**20))
    bundle = make_engine_bundle(words, tmp_path / "engines")
    file = bundle / "engines" / "decoder.engine"
    data = engine_bytes(words / "graphs" / "decoder.onnx", [{"f_hat": [1, 4, 2, 2]}], activations=2**22)
    rewrite(bundle, file, data)
    with pytest.raises(
        EngineError, match=r"not enough memory on the GPU: expected 4.2 MB for activations, found 1.0 MB free"
    ):
        load(bundle).generate("w1")


def test_a_missing_library_is_named_with_the_version_that_built_the_engines(
    engines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(
        EngineError, match=r"needs TensorRT-RTX 1.7.1.116 \(package tensorrt-rtx\), which cannot be imp"
    ):
        load(engines)


def test_a_context_that_fails_says_where(engines: Path, fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load(engines)
    runner_of(pipeline).load()
    for context in runner_of(pipeline)._contexts.values():
        context.memory = (0, 0)
    with pytest.raises(EngineError, match=r"text_model: TensorRT-RTX failed while running \(text_model: no address"):
        pipeline.generate("w1")


def test_the_real_library_without_a_gpu(engines: Path) -> None:
    """With TensorRT-RTX and the CUDA binding that are installed here, the refusal names what is missing."""
    pytest.importorskip("tensorrt_rtx")
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(
        EngineError, match=r"expected an NVIDIA GPU with a driver for CUDA 1\d, found none; install the"
    ):
        load(engines)
