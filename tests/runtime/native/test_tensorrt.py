"""Bundles of engines in the C library: the same plan on buffers of a device, compared with ONNX Runtime's pictures.

There is no GPU. Two fakes stand in for the libraries (tensorrt/): a CUDA whose device memory is memory of this process,
and a TensorRT whose engines are graphs that ONNX Runtime computes. All other code is the library's own.
"""

from __future__ import annotations

import ctypes
import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hart_edge.bundle.manifest import BufferKind, HardwareCompatibility, Manifest, Target, TargetSpec, parse, to_json
from hart_edge.engines.loading import load
from tests.runtime.native.conftest import Build
from tests.runtime.native.fake_engines import with_engines
from tests.runtime.native.letters_bundle import make_letters_bundle
from tests.runtime.native.library import Handle, NativeError, Status, every_scale, token_ids

REMEDY = "; build the engines for this machine with hart-edge engines BUNDLE --target tensorrt"


@dataclasses.dataclass(frozen=True)
class Fakes:
    """The fake driver with its counters, and a way to open a bundle with the fake TensorRT."""

    cuda: Any
    open: Callable[..., Handle]

    def copied(self) -> tuple[int, int]:
        return self.cuda.fake_cuda_copied(0), self.cuda.fake_cuda_copied(1)


@pytest.fixture(scope="module")
def fakes(built: Build, native: Any, engine: Path) -> Any:
    folder = built.folder / "tests"
    cuda = ctypes.CDLL(str(folder / "libhart_edge_fake_cuda.so"))  # found by its soname, libcuda.so.1
    cuda.fake_cuda_in_use.restype, cuda.fake_cuda_copied.restype = ctypes.c_size_t, ctypes.c_long
    library = str(folder / "libhart_edge_fake_tensorrt.so").encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HART_EDGE_REAL_ONNXRUNTIME", str(engine))
        yield Fakes(cuda, lambda bundle, **options: Handle(native, bundle, tensorrt_library=library, **options))


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_letters_bundle(tmp_path_factory.mktemp("letters") / "letters")


@pytest.fixture(scope="module")
def engines(graphs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_engines(graphs, tmp_path_factory.mktemp("engines") / "letters")


def refusal(function: Callable[..., Any], *arguments: Any, **more: Any) -> tuple[Status, str]:
    with pytest.raises(NativeError) as caught:
        function(*arguments, **more)
    return caught.value.status, caught.value.message


# A picture


def test_the_shipped_model_draws_what_onnx_runtime_draws(fakes: Fakes, int8_bundle: Path, tmp_path: Path) -> None:
    """Token ids, pixels and every preview; twice with one handle, since nothing of a picture may affect the next."""
    python = load(int8_bundle, threads=1)
    handle = fakes.open(with_engines(int8_bundle, tmp_path / "engines"))
    for prompt, seed in (("man astronaut", 7), ("red heart", 2**64 - 1)):
        expected = [event.preview().tobytes() for event in python.stream(prompt, seed=seed)]
        previews: list[bytes] = []
        counts: list[int] = []

        def keep(progress: Any, previews: list[bytes] = previews, counts: list[int] = counts) -> None:
            previews.append(bytes(progress.preview[: progress.width * progress.height * 3]))
            counts.append(len(set(token_ids(progress))))

        picture = handle.generate(prompt, seed=seed, previews=1, on_scale=every_scale(keep))
        assert previews == expected
        assert picture.tobytes() == expected[-1]
        assert counts[0] == 1 and max(counts) > 10
    assert (handle.info().engine, handle.info().target) == (b"TensorRT 10.13.3", b"tensorrt")
    handle.close()


def test_only_inputs_and_results_are_copied(fakes: Fakes, engines: Path) -> None:
    """Prompt, noise, settings and zeros are uploaded; pixels, `finite`, token ids and what the text model made of the
    prompt, which is kept for its next seed, are downloaded. Nothing else."""
    manifest: Manifest = parse((engines / "manifest.json").read_bytes())
    text = [step for step in manifest.plan.steps if step.graph == "text_model"]
    kept = sum(manifest.plan.buffers[name].bytes_per_image for step in text for name in step.outputs.values())
    buffers = manifest.plan.buffers.values()
    filled = (BufferKind.INPUT, BufferKind.SETTING, BufferKind.NOISE, BufferKind.ZERO)
    up = sum(each.bytes_per_image for each in buffers if each.kind in filled)
    handle = fakes.open(engines)
    before = fakes.copied()
    told: list[list[int]] = []
    handle.generate("ab", seed=1, on_scale=every_scale(lambda progress: told.append(token_ids(progress))))
    after = fakes.copied()
    assert after[0] - before[0] == up
    ids = 8 * sum(map(len, told))
    assert after[1] - before[1] == 3 * manifest.image_size**2 + 1 + ids + kept and len(told) == 2 and kept > 0
    handle.close()


def test_closing_frees_all_memory_of_the_device(fakes: Fakes, engines: Path) -> None:
    assert fakes.cuda.fake_cuda_in_use() == 0
    handle = fakes.open(engines)
    in_use = fakes.cuda.fake_cuda_in_use()
    handle.generate("ab")
    assert fakes.cuda.fake_cuda_in_use() == in_use > handle.info().memory // 2
    handle.close()
    assert fakes.cuda.fake_cuda_in_use() == 0


def test_a_picture_is_cancelled_between_two_runs(fakes: Fakes, engines: Path) -> None:
    handle = fakes.open(engines)
    expected = handle.generate("ab")
    cancelling = every_scale(lambda _: handle.cancel())
    assert refusal(handle.generate, "ab", on_scale=cancelling)[0] is Status.CANCELLED
    assert handle.generate("ab").tobytes() == expected.tobytes()
    handle.close()


# Refusals from the manifest, before an engine is opened


@pytest.mark.parametrize(
    ("needs", "found", "message"),
    [
        ({"platform": "linux-aarch64"}, {}, "engines built for linux-aarch64, found a machine of linux-x86_64"),
        ({}, {"ARCHITECTURE": "87"}, "engines built for sm_86, sm_89, found a GPU of sm_87 (Jetson Orin)"),
        ({}, {"ARCHITECTURE": "120"}, "engines built for sm_86, sm_89, found a GPU of sm_120"),
        (
            {"hardware_compatibility": HardwareCompatibility.AMPERE_PLUS},
            {"ARCHITECTURE": "110"},
            "engines built for desktop GPUs from sm_80 on, found a GPU of sm_110 (Jetson Thor)",
        ),
        ({}, {"VERSION": "10.14.0"}, "engines built with TensorRT: expected 10.13.3, found 10.14.0"),
        (
            {"version": "11.1.0"},
            {},
            "engines built with TensorRT 11.1.0, found TensorRT 10.13.3: engines do not outlive a major version",
        ),
        (
            {"version": "10.14.0", "version_compatible": True},
            {},
            "engines built with TensorRT: expected 10.14.0 or later, found 10.13.3",
        ),
    ],
)
def test_engines_of_another_machine(
    fakes: Fakes,
    graphs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    needs: dict[str, Any],
    found: dict[str, str],
    message: str,
) -> None:
    for name, value in found.items():
        monkeypatch.setenv(f"HART_EDGE_FAKE_{name}", value)
    bundle = with_engines(graphs, tmp_path / "engines", **needs)
    assert refusal(fakes.open, bundle) == (Status.ENGINE_ERROR, message + REMEDY)
    assert fakes.cuda.fake_cuda_in_use() == 0


@pytest.mark.parametrize(
    ("needs", "found"),
    [
        ({"version": "10.13.3.9"}, {}),
        ({"version": "10.10.0", "version_compatible": True}, {}),
        ({"hardware_compatibility": HardwareCompatibility.AMPERE_PLUS}, {"ARCHITECTURE": "120"}),
    ],
)
def test_engines_that_are_compatible_with_this_machine(
    fakes: Fakes,
    graphs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    needs: dict[str, Any],
    found: dict[str, str],
) -> None:
    for name, value in found.items():
        monkeypatch.setenv(f"HART_EDGE_FAKE_{name}", value)
    handle = fakes.open(with_engines(graphs, tmp_path / "engines", **needs))
    assert handle.generate("ab", seed=7).tobytes() == load(graphs).generate("ab", seed=7).tobytes()
    handle.close()


def test_a_portable_tensorrt_bundle_is_refused(fakes: Fakes, graphs: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(graphs, tmp_path / "portable"))
    manifest = parse((bundle / "manifest.json").read_bytes())
    portable = dataclasses.replace(manifest, target=TargetSpec(Target.TENSORRT, None))
    (bundle / "manifest.json").write_bytes(to_json(portable))
    status, message = refusal(fakes.open, bundle)
    assert status is Status.ENGINE_ERROR
    assert message.startswith("this bundle holds graphs for tensorrt, no engines; build them on this machine with")


def test_an_altered_engine(fakes: Fakes, engines: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(engines, tmp_path / "altered"))
    engine = bundle / "engines" / "decoder.engine"
    engine.write_bytes(engine.read_bytes()[:-1] + b"!")
    status, message = refusal(fakes.open, bundle)
    assert status is Status.BUNDLE_ERROR and message.startswith("engines/decoder.engine: expected sha256 ")


# Refusals of the libraries


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("start", "TensorRT 10.13.3 did not start (it gave no reason); check the library"),
        ("open", ".engine: TensorRT 10.13.3 refused this engine (magic tag does not match); build the engines on this"),
        ("context", ": TensorRT 10.13.3 gave no context on profile "),
    ],
)
def test_a_library_that_refuses(
    fakes: Fakes, engines: Path, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    monkeypatch.setenv("HART_EDGE_FAKE_FAULT", fault)
    status, found = refusal(fakes.open, engines)
    assert status is Status.ENGINE_ERROR and message in found
    assert fakes.cuda.fake_cuda_in_use() == 0


def test_a_run_that_fails_gives_no_image(fakes: Fakes, engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = fakes.open(engines)
    monkeypatch.setenv("HART_EDGE_FAKE_FAULT", "run")
    status, message = refusal(handle.generate, "ab")
    assert status is Status.ENGINE_ERROR
    assert message.endswith(
        ": TensorRT 10.13.3 failed while running (a kernel failed); build the engines again with hart-edge engines"
    )
    monkeypatch.delenv("HART_EDGE_FAKE_FAULT")
    assert handle.generate("ab").any()
    handle.close()


def test_not_enough_memory_on_the_device(fakes: Fakes, engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HART_EDGE_FAKE_MEMORY", "1000")
    status, message = refusal(fakes.open, engines)
    assert status is Status.OUT_OF_MEMORY
    assert message.startswith("expected ") and " bytes on the GPU for the plan's buffers, found fewer; " in message
    assert fakes.cuda.fake_cuda_in_use() == 0


@pytest.mark.parametrize("device", [1, -1])
def test_a_device_that_is_not_there(fakes: Fakes, engines: Path, device: int) -> None:
    expected = f"expected CUDA device {device}, found 1 devices; name another, or use a bundle for cpu"
    assert refusal(fakes.open, engines, device=device) == (Status.ENGINE_ERROR, expected)


def test_a_missing_library(native: Any, engines: Path) -> None:
    status, message = refusal(Handle, native, engines, tensorrt_library=b"/none/libnvinfer.so")
    assert status is Status.ENGINE_ERROR
    assert message.startswith("expected TensorRT 10's library /none/libnvinfer.so, found none that loads (/none/")
    assert message.endswith("or name its library in HART_EDGE_TENSORRT or hart_edge_options")


def test_a_library_of_another_major_version(fakes: Fakes, engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HART_EDGE_FAKE_VERSION", "11.0.0")
    expected = (
        "expected TensorRT 10, for which this library was compiled, found 11.0.0; compile it with that one's headers"
    )
    assert refusal(fakes.open, engines) == (Status.ENGINE_ERROR, expected)


@pytest.mark.parametrize(("asked", "bundle"), [(1, "engines"), (2, "graphs")])
def test_an_engine_that_does_not_run_the_target(
    native: Any, asked: int, bundle: str, request: pytest.FixtureRequest
) -> None:
    status, message = refusal(Handle, native, request.getfixturevalue(bundle), engine=asked)
    assert status is Status.ENGINE_ERROR and message.startswith("engine: expected the one that runs bundles for ")


def test_engines_of_tensorrt_rtx(native: Any, engines: Path, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(engines, tmp_path / "rtx"))
    manifest = parse((bundle / "manifest.json").read_bytes())
    changed = dataclasses.replace(manifest, target=dataclasses.replace(manifest.target, name=Target.TENSORRT_RTX))
    (bundle / "manifest.json").write_bytes(to_json(changed))
    status, message = refusal(Handle, native, bundle)
    assert status is Status.ENGINE_ERROR
    assert message.startswith("this library runs bundles for cpu, cuda and tensorrt, found one for tensorrt-rtx; ")
