"""CUDA's runtime as far as a runner needs it: memory, copies, one stream, graphs. In: integers that are addresses.

Every call into the binding (cuda.bindings.runtime of cuda-python) is in this file. Errors become EngineError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hart_edge.bundle.limits import available_memory
from hart_edge.engines.forks import NO_GPU, HomeProcess
from hart_edge.errors import EngineError, OutOfMemoryError
from hart_edge.runtime.loop import Array
from hart_edge.units import size

OUT_OF_MEMORY = 2
NO_DRIVER = {35, 100, 803}  # cudaErrorInsufficientDriver, cudaErrorNoDevice, cudaErrorSystemDriverMismatch
PACKAGE = "cuda-bindings"


@dataclass(frozen=True)
class Device:
    """A GPU. architecture: `sm_87`; memory: bytes in all; integrated: shares its memory with the processor."""

    name: str
    architecture: str
    memory: int
    integrated: bool


class CudaError(EngineError):
    """A call into CUDA that failed. code: cudaError_t."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Cuda:
    """One device and one stream, which everything runs on. Not for use from several threads at once."""

    def __init__(self, extra: str, host_memory: Callable[[], int | None] = available_memory) -> None:
        """extra: the extra of hart-edge that installs the binding; host_memory: tells the bytes that this machine has
        free, None where the system does not say. Raises EngineError without binding or driver."""
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise EngineError(
                f"engines need {PACKAGE} (CUDA for Python), which is not installed ({error}); "
                f"pip install 'hart-edge[{extra}]', with a {PACKAGE} of the major version of the machine's CUDA"
            ) from error
        self._library, self._host_memory = runtime, host_memory
        self.home = HomeProcess()
        self._kinds = runtime.cudaMemcpyKind
        try:
            count = self._call("cudaGetDeviceCount")
        except CudaError as error:
            if error.code not in NO_DRIVER:
                raise
            count = 0
        if count == 0:
            version = self._call("cudaRuntimeGetVersion")
            raise EngineError(
                f"expected an NVIDIA GPU with a driver for CUDA {version // 1000}, found none; install the driver "
                "(on Jetson it comes with JetPack; in a container pass the GPU through), or use a bundle for cpu"
            )
        self._index = self._call("cudaGetDevice")
        self.stream = self._call("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking)

    @property
    def handle(self) -> int:
        """The stream as TensorRT takes it."""
        return int(self.stream)

    def device(self) -> Device:
        found = self._call("cudaGetDeviceProperties", self._index)
        name = found.name.split(b"\0")[0].decode() if isinstance(found.name, bytes) else str(found.name)
        return Device(name, f"sm_{found.major}{found.minor}", int(found.totalGlobalMem), bool(found.integrated))

    def free_memory(self) -> int:
        """Bytes that can be allocated now. Where GPU and processor share memory, caches of files count as free."""
        free = int(self._call("cudaMemGetInfo")[0])
        if self._call("cudaGetDeviceProperties", self._index).integrated:
            return max(free, self._host_memory() or 0)
        return free

    def driver_version(self) -> int:
        """The newest CUDA that the driver knows, 12040 for 12.4."""
        return int(self._call("cudaDriverGetVersion"))

    def allocate(self, size: int, what: str) -> int:
        """The address of `size` bytes. Raises EngineError that says what they were for."""
        try:
            return int(self._call("cudaMalloc", size))
        except CudaError as error:
            if error.code != OUT_OF_MEMORY:
                raise
            raise not_enough_memory(what, size, self.free_memory()) from error

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def upload(self, address: int, array: Array) -> None:
        """Copy a C-contiguous array to the device, in the stream's order; the array may change afterwards."""
        if array.nbytes:  # from pageable memory: CUDA has read it when the call returns
            kind = self._kinds.cudaMemcpyHostToDevice
            self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self.stream)

    def download(self, address: int, array: Array) -> None:
        """Copy from the device into a C-contiguous array, and wait for it."""
        if array.nbytes:
            kind = self._kinds.cudaMemcpyDeviceToHost
            self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self.stream)
        self.synchronize()

    def clear(self, address: int, size: int) -> None:
        if size:
            self._call("cudaMemsetAsync", address, 0, size, self.stream)

    def synchronize(self) -> None:
        """Wait for the stream; errors of earlier work show here."""
        self._call("cudaStreamSynchronize", self.stream)

    def begin_capture(self) -> None:
        mode = self._library.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self.stream, mode)

    def end_capture(self) -> Any:
        """An executable graph of what was enqueued since begin_capture."""
        graph = self._call("cudaStreamEndCapture", self.stream)
        try:
            return self._call("cudaGraphInstantiate", graph, 0)
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: Any) -> None:
        self._call("cudaGraphLaunch", graph, self.stream)

    def destroy(self, graph: Any) -> None:
        self._call("cudaGraphExecDestroy", graph)

    def require_home(self) -> None:
        """Raise EngineError in a child that was forked since."""
        if not self.home.is_this():
            raise EngineError(NO_GPU)

    def _call(self, name: str, *arguments: Any) -> Any:
        """The result of a function: nothing, one value or a tuple."""
        self.require_home()
        status, *values = getattr(self._library, name)(*arguments)
        if int(status) != 0:
            meaning = getattr(status, "name", str(status))
            raise CudaError(f"CUDA failed in {name}: {meaning} ({int(status)})", int(status))
        return values[0] if len(values) == 1 else tuple(values)


def not_enough_memory(what: str, needed: int, free: int) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"not enough memory on the GPU: expected {size(needed)} for {what}, found {size(free)} free; "
        "close what else uses it, load with low_memory=True (hart-edge generate --low-memory), or see what would fit: "
        "hart-edge plan BUNDLE --memory SIZE"
    )
