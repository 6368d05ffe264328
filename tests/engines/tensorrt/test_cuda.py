"""Errors of the CUDA binding become messages; tests of the runner cover the rest of engines/tensorrt/cuda.py."""

import sys

import numpy as np
import pytest

from hart_edge.engines.tensorrt import cuda
from hart_edge.engines.tensorrt.cuda import Cuda, CudaError, Device
from hart_edge.errors import EngineError
from tests.engines.tensorrt.engine_bundle import install
from tests.engines.tensorrt.fake_cuda import Error, FakeCuda


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return install(monkeypatch).cuda


def test_without_the_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(
        EngineError, match=r"engines need cuda-bindings \(CUDA for Python\), which is not installed .*; pip install"
    ):
        Cuda("tensorrt")


@pytest.mark.parametrize("devices", [Error.INSUFFICIENT_DRIVER, Error.NO_DEVICE, 0])
def test_without_a_driver_or_a_gpu(fake: FakeCuda, devices: int) -> None:
    fake.devices = devices
    with pytest.raises(EngineError) as refused:
        Cuda("tensorrt")
    assert str(refused.value) == (
        "expected an NVIDIA GPU with a driver for CUDA 13, found none; install the driver (on Jetson it comes with "
        "JetPack; in a container pass the GPU through), or use a bundle for cpu"
    )


def test_properties_of_the_device(fake: FakeCuda) -> None:
    found = Cuda("tensorrt")
    assert found.device() == Device("Fake GPU", "sm_89", 8 * 2**30, False)
    assert found.driver_version() == 13000 and found.free_memory() == 8 * 2**30
    fake.architecture = (12, 0)
    assert found.device().architecture == "sm_120"


def test_shared_memory_counts_caches_of_files_as_free(fake: FakeCuda) -> None:
    fake.integrated, fake.memory = 1, 1000
    assert Cuda("tensorrt", host_memory=lambda: 5000).free_memory() == 5000


def test_not_enough_memory_says_how_much_and_for_what(fake: FakeCuda) -> None:
    fake.memory = 3 * 10**6
    with pytest.raises(EngineError) as refused:
        Cuda("tensorrt").allocate(5 * 10**6, "activations")
    assert str(refused.value) == (
        "not enough memory on the GPU: expected 5.0 MB for activations, found 3.0 MB free; close what else uses it, "
        "load with low_memory=True (hart-edge generate --low-memory), or see what would fit: hart-edge plan BUNDLE "
        "--memory SIZE"
    )


def test_other_errors_name_the_call(fake: FakeCuda) -> None:
    with pytest.raises(CudaError, match=r"CUDA failed in cudaMemcpyAsync: ILLEGAL_ADDRESS \(700\)"):
        Cuda("tensorrt").upload(12345, np.ones(3))


def test_copies_come_in_the_streams_order_and_read_the_host_at_once(fake: FakeCuda) -> None:
    device = Cuda("tensorrt")
    address, array = device.allocate(12, "three"), np.arange(3, dtype=np.int32)
    device.upload(address, array)
    array[:] = 9
    found = np.zeros(3, np.int32)
    device.download(address, found)
    assert found.tolist() == [0, 1, 2]
    device.clear(address, 8)
    device.download(address, found)
    assert found.tolist() == [0, 0, 2]
    device.free(address)
    assert fake.used() == 0


def test_the_real_binding_on_a_machine_without_a_driver() -> None:
    runtime = pytest.importorskip("cuda.bindings.runtime")
    if int(runtime.cudaGetDeviceCount()[0]) == 0:
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(EngineError, match="expected an NVIDIA GPU with a driver for CUDA 1"):
        Cuda("tensorrt-rtx")


def test_the_real_binding_has_every_name_that_is_used() -> None:
    """The binding has the names and fields that engines/tensorrt/cuda.py and the fake use."""
    runtime = pytest.importorskip("cuda.bindings.runtime")
    called = {name for name in dir(FakeCuda) if name.startswith("cuda")}
    assert len(called) > 20 and not [name for name in called if not hasattr(runtime, name)]
    properties = runtime.cudaDeviceProp()
    assert [int(getattr(properties, name)) for name in ("major", "minor", "totalGlobalMem", "integrated")] == [0] * 4
    assert isinstance(properties.name, bytes)
    assert runtime.cudaMemcpyKind.cudaMemcpyHostToDevice and runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
    assert runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    assert int(runtime.cudaStream_t(7)) == 7
    assert (int(runtime.cudaError_t.cudaErrorMemoryAllocation), runtime.cudaStreamNonBlocking) == (
        cuda.OUT_OF_MEMORY,
        1,
    )
