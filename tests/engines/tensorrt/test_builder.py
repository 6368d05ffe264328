"""Real engines of small graphs: TensorRT-RTX itself, and the code path of classic TensorRT run with it."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from hart_edge.bundle.manifest import HardwareCompatibility
from hart_edge.engines.base import BuildProgress, EngineSettings
from hart_edge.engines.tensorrt.builder import TensorRTBuilder
from hart_edge.engines.tensorrt.facts import TENSORRT, TENSORRT_RTX
from hart_edge.errors import BuildError, EngineError
from tests.engines.tensorrt.small_graphs import CLASSIC, CLASSIC_FACTS, PROFILES, RTX, silu_graph, write_graph


def test_an_engine_for_three_architectures(tmp_path: Path) -> None:
    settings = RTX.prepare(EngineSettings())
    assert settings.architectures == ("sm_86", "sm_89", "sm_120")
    seen: list[BuildProgress] = []
    out = tmp_path / "small.engine"
    report = RTX.build(silu_graph(tmp_path), PROFILES, settings, out, seen.append)
    assert report["engine_bytes"] == out.stat().st_size > 10_000
    assert (report["library"], report["version"]) == ("tensorrt_rtx", RTX.version())
    assert report["architectures"] == ["sm_86", "sm_89", "sm_120"]
    assert [profile["scale"] for profile in report["profiles"]] == [0, 1, 2]
    assert report["profiles"][2]["shapes"] == {"x": [[1, 9, 64], [1, 9, 64], [2, 9, 64]]}
    assert len(report["activation_bytes"]) == 3 and report["weight_bytes"] >= 64 * 64 * 2
    assert {node["name"]: node["operator"] for node in report["nodes"]} == {
        "node_half": "Cast",
        "node_h": "MatMul",
        "node_gate": "Sigmoid",
        "node_silu": "Mul",
        "node_y": "Cast",
    }
    assert {node["fate"] for node in report["nodes"]} <= {"layer", "fused"}
    assert report["layers_by_precision"]["Half"] >= 1 and report["layers"] >= 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.engine", "small.onnx"]
    phases = list(dict.fromkeys(progress.phase for progress in seen))  # slow phases are reported repeatedly
    assert phases[:2] == ["starting", "parsing"] and len(phases) > 3
    assert all(0 <= progress.done <= progress.total and progress.component == "small" for progress in seen)
    assert [progress.seconds for progress in seen] == sorted(progress.seconds for progress in seen)


@pytest.mark.long
def test_turing_builds_products_in_fp16_but_not_in_float32(tmp_path: Path) -> None:
    settings = RTX.prepare(EngineSettings(architectures=("sm_75",)))
    out = tmp_path / "small.engine"
    assert RTX.build(silu_graph(tmp_path), PROFILES, settings, out, lambda _: None)["architectures"] == ["sm_75"]
    graph = write_graph(tmp_path, [helper.make_node("MatMul", ["x", "x"], ["y"])], name="wide")
    square = [replace(PROFILES[0], shapes={"x": ((1, 64, 64),) * 3})]
    with pytest.raises(BuildError, match=r"^wide: tensorrt_rtx \S+ built no engine: .*FP32 GEMM is not supported"):
        RTX.build(graph, square, settings, tmp_path / "wide.engine", lambda _: None)
    assert not list(tmp_path.glob("wide.engine*"))


def test_the_path_of_classic_tensorrt(tmp_path: Path) -> None:
    """The same graph and worker, but the engine is for the GPU of this machine, and the timing cache is kept."""
    cache = tmp_path / "timings"
    settings = CLASSIC.prepare(EngineSettings(workspace=2**28, timing_cache=cache))
    assert settings.architectures == ("sm_87",)
    report = CLASSIC.build(silu_graph(tmp_path), PROFILES, settings, tmp_path / "small.engine", lambda _: None)
    assert report["architectures"] == ["sm_87"] and report["fates"].keys() <= {"layer", "fused"}
    assert cache.stat().st_size > 0 and not list(tmp_path.glob("*.part"))


def test_jetsons_are_refused_by_name() -> None:
    for architecture, name in (("sm_87", "Jetson Orin"), ("sm_110", "Jetson Thor")):
        message = (
            f"^target tensorrt-rtx: {architecture} is {name}, where TensorRT-RTX does not run; build there with "
            "hart-edge engines BUNDLE --target tensorrt$"
        )
        with pytest.raises(BuildError, match=message):
            RTX.prepare(EngineSettings(architectures=("sm_86", architecture)))


def test_other_gpus_are_refused() -> None:
    message = "^target tensorrt-rtx: expected architectures of sm_75, .*, sm_121, found sm_90; other GPUs take --tar"
    with pytest.raises(BuildError, match=message):
        RTX.prepare(EngineSettings(architectures=("sm_90",)))


def test_options_that_a_library_does_not_support(tmp_path: Path) -> None:
    for settings, message in (
        (EngineSettings(version_compatible=True), "leave --version-compatible out"),
        (EngineSettings(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS), "use --architectures instead"),
        (EngineSettings(timing_cache=tmp_path / "cache"), "it times nothing while it builds"),
    ):
        with pytest.raises(BuildError, match=message):
            RTX.prepare(settings)


def test_classic_tensorrt_needs_the_gpu() -> None:
    message = (
        "^target tensorrt: engines are built on the GPU that will run them, and this machine has no NVIDIA driver; "
        "copy the portable bundle to that machine and run hart-edge engines there$"
    )
    with pytest.raises(EngineError, match=message):
        TensorRTBuilder(CLASSIC_FACTS, gpu=lambda: None).prepare(EngineSettings())


def test_classic_tensorrt_builds_for_no_other_gpu() -> None:
    with pytest.raises(BuildError, match=r"^target tensorrt: .* this machine, sm_87; asked for sm_86\. Build on such"):
        CLASSIC.prepare(EngineSettings(architectures=("sm_86",)))


def test_a_missing_library_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    message = r"^target tensorrt-rtx: tensorrt_rtx is not installed; pip install 'hart-edge\[tensorrt-rtx\]'$"
    with pytest.raises(EngineError, match=message):
        RTX.prepare(EngineSettings())
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"^target tensorrt: tensorrt is not installed; pip install 'hart-edge"):
        TensorRTBuilder(TENSORRT).prepare(EngineSettings())


def test_an_unsupported_version() -> None:
    with pytest.raises(EngineError, match=r"^tensorrt_rtx \S+ is installed, this version of hart-edge knows 10\.x"):
        TensorRTBuilder(replace(TENSORRT_RTX, majors=range(10, 12))).version()


def test_a_refused_graph_names_the_node(tmp_path: Path) -> None:
    """The graph has a UINT8 tensor inside, where TensorRT supports UINT8 only at inputs and outputs."""
    nodes = [
        helper.make_node("Cast", ["x"], ["levels"], to=TensorProto.UINT8),
        helper.make_node("Cast", ["levels"], ["y"], to=TensorProto.FLOAT),
    ]
    graph = write_graph(tmp_path, nodes)
    message = r"^small: the parser of tensorrt_rtx \S+ refused the graph at node node_levels \(Cast\): .*UINT8"
    with pytest.raises(BuildError, match=message):
        RTX.build(graph, PROFILES, RTX.prepare(EngineSettings()), tmp_path / "small.engine", lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_profiles_with_other_inputs_than_the_graph(tmp_path: Path) -> None:
    profile = replace(PROFILES[0], shapes={"z": ((1, 1, 64),) * 3})
    with pytest.raises(BuildError, match=r"^small: the graph takes x, the plan feeds z; rebuild the bundle$"):
        RTX.build(silu_graph(tmp_path), [profile], RTX.prepare(EngineSettings()), tmp_path / "e", lambda _: None)


def test_a_library_that_dies_is_an_error_of_that_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dying.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    dying = TensorRTBuilder(replace(TENSORRT_RTX, module="dying"))
    message = r"^small: dying ended while starting without an engine \(signal 9, as when memory runs out\); free memory"
    with pytest.raises(BuildError, match=message):
        dying.build(silu_graph(tmp_path), PROFILES, EngineSettings(), tmp_path / "small.engine", lambda _: None)


def test_an_interrupted_build_ends_its_process_and_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(progress: BuildProgress) -> None:
        if progress.phase != "starting":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        RTX.build(silu_graph(tmp_path), PROFILES, RTX.prepare(EngineSettings()), tmp_path / "small.engine", interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
