"""`hart-edge doctor` on invented machines."""

import functools
import json
import sys
import types
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import hart_edge
from hart_edge.api import DEFAULT_BUNDLE
from hart_edge.bundle.limits import Memory
from hart_edge.cli import doctor
from tests.cli.command_line import Run
from tests.engines.tensorrt.engine_bundle import install_cuda
from tests.engines.tensorrt.fake_cuda import FakeCuda


def fake_onnxruntime(*providers: str) -> Any:
    return types.SimpleNamespace(__version__="1.99.0", get_available_providers=lambda: list(providers))


def only_numpy(a: Namespace) -> int:
    """`doctor` where numpy is installed and no other package."""
    return doctor.run(a, {"numpy": "2.0.0"}.get)


def report(run: Run, by: Callable[[Namespace], int] | None = None) -> tuple[int, dict[str, Any]]:
    status, out, _ = run("doctor", "--json", by=by)
    return status, json.loads(out)


def test_this_machine(run: Run) -> None:
    status, found = report(run)
    targets = {each["target"]: each for each in found["targets"]}
    assert status == 0 and targets["cpu"]["usable"]
    assert targets["cpu"]["detail"].endswith(", CPUExecutionProvider")
    assert list(targets) == ["cpu", "cuda", "tensorrt", "tensorrt-rtx"]
    assert found["hart_edge"] == hart_edge.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["cores"] >= 1 and found["memory_bytes"] > found["memory_available_bytes"] > 0
    assert found["processor"]["name"] and isinstance(found["processor"]["instructions"], list)
    assert found["build_packages"]["torch"] and found["build_packages"]["onnx"]


def test_the_limit_of_a_container_is_reported(run: Run) -> None:
    memory = Memory(512 * 10**6, 300 * 10**6, 16 * 10**9, "the control group's limit")
    by = functools.partial(doctor.run, memory=lambda: memory)
    _, found = report(run, by)
    assert found["memory_bytes"] == 512 * 10**6 and found["memory_available_bytes"] == 300 * 10**6
    assert found["memory_limit"] == "the control group's limit" and found["machine_memory_bytes"] == 16 * 10**9
    _, out, _ = run("doctor", by=by)
    assert out.splitlines()[1].endswith(
        "memory 512.0 MB (300.0 MB free): the control group's limit, of a machine with 16.0 GB"
    )


def test_a_device_with_onnxruntime_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", fake_onnxruntime("CPUExecutionProvider"))
    status, out, _ = run("doctor", by=only_numpy)
    lines = out.splitlines()
    assert status == 0
    assert lines[0].startswith(f"hart-edge  {hart_edge.__version__}, Python 3.") and lines[0].endswith(", numpy 2.0.0")
    assert lines[3] == (
        "bundles    not possible here: torch, onnx, onnxscript, transformers, safetensors not installed; "
        "pip install 'hart-edge[export]'"
    )
    assert lines[4] == (
        "default    bundles/hart-emoji-int8 is not here; build it with python -m export.build --precision int8"
    )
    head, cpu, cuda, *_ = lines[6:]
    assert head.split() == ["target", "usable", "because"]
    assert cpu.split(maxsplit=2) == ["cpu", "yes", "onnxruntime 1.99.0, CPUExecutionProvider"]
    assert cuda.split(maxsplit=2)[:2] == ["cuda", "no"]
    assert "expected CUDAExecutionProvider in ONNX Runtime 1.99.0, found CPUExecutionProvider; pip install" in cuda


def test_a_machine_with_a_gpu(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_onnxruntime("CUDAExecutionProvider", "CPUExecutionProvider")
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    status, found = report(run)
    assert status == 0
    assert {each["target"] for each in found["targets"] if each["usable"]} >= {"cpu", "cuda"}


def test_a_machine_that_can_use_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("onnxruntime", "tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    status, found = report(run, only_numpy)
    assert status == 1
    assert not any(each["usable"] for each in found["targets"])
    detail = {each["target"]: each["detail"] for each in found["targets"]}
    assert detail["cpu"].startswith("onnxruntime is not installed (") and "hart-edge[cpu]" in detail["cpu"]
    assert "hart-edge[gpu]" in detail["cuda"]
    assert "tensorrt_rtx is not installed; pip install 'hart-edge[tensorrt-rtx]'" in detail["tensorrt-rtx"]


def test_the_default_bundle_is_looked_for_here(run: Run, tmp_path: Path) -> None:
    assert report(run)[1]["default_bundle"] == {"path": str(DEFAULT_BUNDLE), "present": False}
    (tmp_path / DEFAULT_BUNDLE).mkdir(parents=True)
    (tmp_path / DEFAULT_BUNDLE / "manifest.json").write_text("{}")
    assert report(run)[1]["default_bundle"]["present"] is True
    assert "default    bundles/hart-emoji-int8 is here\n" in run("doctor")[1]


def test_the_gpu_that_engines_would_run_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = install_cuda(monkeypatch, FakeCuda())
    assert report(run)[1]["gpu"] == {
        "usable": True,
        "architecture": "sm_89",
        "detail": "Fake GPU, sm_89, 8.6 GB, CUDA driver 13.0",
    }
    fake.devices = 0
    found = report(run)[1]["gpu"]
    assert not found["usable"] and found["detail"].startswith(
        "expected an NVIDIA GPU with a driver for CUDA 13, found none"
    )
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    status, out, _ = run("doctor")
    last = out.splitlines()[-1]
    assert status == 0
    assert last.startswith("gpu        engines need cuda-bindings") and "pip install 'hart-edge[tensorrt]'" in last
