"""Opening the library and its engines: messages for what is missing, too old, altered or refused."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from hart_edge.bundle.target import Target
from hart_edge.engines.tensorrt.library import TensorRT
from hart_edge.errors import EngineError
from tests.engines.tensorrt.engine_bundle import install
from tests.engines.tensorrt.fake_tensorrt import HEADER, FakeTensorRT, Severity, engine_bytes


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    return install(monkeypatch)


@pytest.mark.parametrize(
    ("target", "module", "message"),
    [
        (
            Target.TENSORRT,
            "tensorrt",
            r"this bundle needs TensorRT 10.3 or later \(package tensorrt\), which cannot be imported \(.*\); pip "
            r"install 'hart-edge\[tensorrt\]', or on Jetson the python3-libnvinfer of JetPack",
        ),
        (
            Target.TENSORRT_RTX,
            "tensorrt_rtx",
            r"this bundle needs TensorRT-RTX 1.2 or later \(package tensorrt-rtx\), which cannot be imported \(.*\); "
            r"pip install 'hart-edge\[tensorrt-rtx\]'$",
        ),
    ],
)
def test_without_the_library(monkeypatch: pytest.MonkeyPatch, target: Target, module: str, message: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(EngineError, match=message):
        TensorRT(target)


def test_a_library_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Target.TENSORRT, version="8.6.2")
    with pytest.raises(EngineError, match=r"TensorRT: expected 10.3 or later, found 8.6.2; pip install"):
        TensorRT(Target.TENSORRT)


def test_messages_of_the_library_are_logged_and_the_last_error_kept(
    fake: FakeTensorRT, caplog: pytest.LogCaptureFixture
) -> None:
    library = TensorRT(Target.TENSORRT_RTX)
    assert library.last_error() == "it gave no reason"
    with caplog.at_level("DEBUG", "hart_edge.engines.tensorrt.library"):
        for severity in Severity:
            library.logger.log(severity, f"about {severity.name}")
    assert library.last_error() == "about ERROR"
    levels = [record.levelname for record in caplog.records]
    assert levels == ["INFO", "INFO", "INFO", "DEBUG", "DEBUG"]


@pytest.mark.parametrize(
    ("validity", "reason"),
    [
        (1, "of another version"),
        (2, "of another GPU architecture"),
        (4 + 16, "the CUDA driver is too old, not enough GPU memory"),
        (128, "it does not say why"),
    ],
)
def test_the_librarys_own_check_refuses_before_the_engine_is_read(
    fake: FakeTensorRT, tmp_path: Path, validity: int, reason: str
) -> None:
    path = tmp_path / "decoder.engine"
    path.write_bytes(engine_bytes(tmp_path / "decoder.onnx", [{}], validity=validity))
    with pytest.raises(EngineError) as refused:
        TensorRT(Target.TENSORRT_RTX).open(path)
    assert str(refused.value) == (
        f"decoder.engine: TensorRT-RTX 1.7.1.116 cannot run this engine on this machine: {reason}; build the engines "
        "here with hart-edge engines"
    )
    assert fake.opened == []


def test_an_engine_that_runs_slower_than_it_could_is_reported(
    fake: FakeTensorRT, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "decoder.engine"
    path.write_bytes(bytes(HEADER))
    monkeypatch.setattr(fake, "_examine", lambda header: (fake.EngineValidity.SUBOPTIMAL, 0))
    TensorRT(Target.TENSORRT_RTX).check(path)
    assert "decoder.engine: this engine runs here, but one built for this GPU would be faster" in caplog.text


@pytest.mark.parametrize("streams", [True, False])
def test_bytes_that_are_no_engine_are_refused_with_the_librarys_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, streams: bool
) -> None:
    install(monkeypatch, streams=streams, validity=False)
    (tmp_path / "x.engine").write_bytes(b"something else")
    with pytest.raises(
        EngineError, match=r"x.engine: TensorRT-RTX .* refused this engine \(this is no engine\); build"
    ):
        TensorRT(Target.TENSORRT_RTX).open(tmp_path / "x.engine")


def test_an_engine_with_other_tensors_than_the_manifest_says(fake: FakeTensorRT) -> None:
    engine = types.SimpleNamespace(
        num_io_tensors=2, get_tensor_name=["x", "y"].__getitem__, get_tensor_dtype=lambda name: np.float32
    )
    library = TensorRT(Target.TENSORRT_RTX)
    library.check_tensors(engine, {"x": "float32", "y": "float32"}, "decoder")
    for specs in ({"x": "float32", "y": "float16"}, {"x": "float32"}, {"x": "float32", "y": "float32", "z": "bool"}):
        with pytest.raises(
            EngineError, match=r"decoder: engine and manifest disagree about '[yz]'; rebuild the bundle"
        ):
            library.check_tensors(engine, specs, "decoder")


def test_the_real_library_refuses_bytes_that_are_no_engine(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    (tmp_path / "x.engine").write_bytes(b"x" * 1000)
    with pytest.raises(
        EngineError, match=r"x.engine: TensorRT-RTX .* cannot run this engine on this machine: malformed;"
    ):
        TensorRT(Target.TENSORRT_RTX).open(tmp_path / "x.engine")


def test_the_real_library_has_every_name_that_is_used() -> None:
    library = pytest.importorskip("tensorrt_rtx")
    names = {
        library.ICudaEngine: (
            "num_io_tensors", "get_tensor_name", "get_tensor_dtype", "get_tensor_location", "create_runtime_config",
            "get_device_memory_size_for_profile_v2", "create_execution_context",
        ),
        library.IExecutionContext: (
            "set_optimization_profile_async", "set_device_memory", "set_input_shape", "get_tensor_shape",
            "set_tensor_address", "execute_async_v3", "is_stream_capturable",
        ),
        library.IRuntimeConfig: (
            "set_execution_context_allocation_strategy", "cuda_graph_strategy",
            "dynamic_shapes_kernel_specialization_strategy",
        ),
        library.Runtime: ("deserialize_cuda_engine", "get_engine_validity", "engine_header_size"),
        library.IStreamReaderV2: ("read", "seek"),
        library.SeekPosition: ("SET", "CUR", "END"),
        library.EngineValidity: ("VALID", "SUBOPTIMAL", "INVALID"),
        library.TensorLocation: ("HOST", "DEVICE"),
        library.ExecutionContextAllocationStrategy: ("USER_MANAGED",),
        library.CudaGraphStrategy: ("DISABLED",),
        library.DynamicShapesKernelSpecializationStrategy: ("EAGER",),
    }  # fmt: skip
    assert [name for owner, wanted in names.items() for name in wanted if not hasattr(owner, name)] == []
    assert np.dtype(library.nptype(library.DataType.BOOL)).name == "bool"
