# ruff: noqa: N802, N815
# The names are those of CUDA's bindings.
"""A fake cuda.bindings.runtime, whose device is memory of this process, with what engines/tensorrt/cuda.py calls.

Work is queued on the stream and runs when somebody waits, so that a missing wait is noticed. Captured work runs only
when its graph is launched. `allocated` has what was not freed.
"""

from __future__ import annotations

import ctypes
import types
from collections.abc import Callable
from enum import IntEnum
from typing import Any


class Error(IntEnum):
    SUCCESS = 0
    OUT_OF_MEMORY = 2
    INSUFFICIENT_DRIVER = 35
    NO_DEVICE = 100
    ILLEGAL_ADDRESS = 700
    CAPTURE_INVALIDATED = 901


class Kind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class FakeCuda:
    """A device. Set the fields before a runner is made; read them afterwards."""

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = Kind
    cudaStreamCaptureMode = types.SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self, architecture: tuple[int, int] = (8, 9), memory: int = 8 * 2**30) -> None:
        self.architecture, self.memory, self.integrated = architecture, memory, 0
        self.devices: Error | int = 1
        self.allocated: dict[int, Any] = {}
        self.queue: list[Callable[[], None]] = []
        self.capturing: list[Callable[[], None]] | None = None
        self.spoiled = False  # the current capture met something that cannot be captured
        self.log: list[str] = []

    def enqueue(self, name: str, work: Callable[[], None]) -> None:
        """Queue work on the stream, as a library does."""
        if self.capturing is not None:
            self.capturing.append(work)
            self.log.append(f"captured {name}")
        else:
            self.queue.append(work)
            self.log.append(name)

    def used(self) -> int:
        return sum(len(block) for block in self.allocated.values())

    def holds(self, address: int, size: int) -> bool:
        """Whether a range lies inside one allocation."""
        return any(start <= address and address + size <= start + len(block) for start, block in self.allocated.items())

    def cudaGetDeviceCount(self) -> tuple[Any, ...]:
        if isinstance(self.devices, Error):
            return self.devices, None
        return Error.SUCCESS, self.devices

    def cudaRuntimeGetVersion(self) -> tuple[Any, ...]:
        return Error.SUCCESS, 13050

    def cudaDriverGetVersion(self) -> tuple[Any, ...]:
        return Error.SUCCESS, 13000

    def cudaGetDevice(self) -> tuple[Any, ...]:
        return Error.SUCCESS, 0

    def cudaGetDeviceProperties(self, index: int) -> tuple[Any, ...]:
        major, minor = self.architecture
        return Error.SUCCESS, types.SimpleNamespace(
            name=b"Fake GPU\0\0", major=major, minor=minor, totalGlobalMem=self.memory, integrated=self.integrated
        )

    def cudaMemGetInfo(self) -> tuple[Any, ...]:
        return Error.SUCCESS, self.memory - self.used(), self.memory

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:
        if self.used() + size > self.memory:
            return Error.OUT_OF_MEMORY, None
        whole = (ctypes.c_char * (size + 256))()
        skipped = -ctypes.addressof(whole) % 256  # addresses are multiples of 256, as cudaMalloc's are
        block = (ctypes.c_char * size).from_buffer(whole, skipped)
        ctypes.memset(block, 0xAB, size)  # code must not rely on zeros
        self.allocated[ctypes.addressof(block)] = block
        return Error.SUCCESS, ctypes.addressof(block)

    def cudaFree(self, address: int) -> tuple[Any, ...]:
        del self.allocated[address]
        return (Error.SUCCESS,)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Any, ...]:
        return Error.SUCCESS, 7

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: Kind, stream: int) -> tuple[Any, ...]:
        if kind is Kind.cudaMemcpyHostToDevice:
            if not self.holds(to, size):
                return (Error.ILLEGAL_ADDRESS,)
            data = ctypes.string_at(source, size)  # pageable memory is read at once
            self.enqueue("upload", lambda: ctypes.memmove(to, data, size) and None)
        else:
            if not self.holds(source, size):
                return (Error.ILLEGAL_ADDRESS,)
            self.enqueue("download", lambda: ctypes.memmove(to, source, size) and None)
        return (Error.SUCCESS,)

    def cudaMemsetAsync(self, address: int, value: int, size: int, stream: int) -> tuple[Any, ...]:
        self.enqueue("clear", lambda: ctypes.memset(address, value, size) and None)
        return (Error.SUCCESS,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:
        if self.capturing is not None:
            self.spoiled = True
            return (Error.CAPTURE_INVALIDATED,)
        self.log.append("wait")
        queue, self.queue = self.queue, []
        for work in queue:
            work()
        return (Error.SUCCESS,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[Any, ...]:
        self.capturing, self.spoiled = [], False
        return (Error.SUCCESS,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:
        captured, self.capturing = self.capturing, None
        return (Error.CAPTURE_INVALIDATED, None) if self.spoiled else (Error.SUCCESS, captured)

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> tuple[Any, ...]:
        return Error.SUCCESS, list(graph)

    def cudaGraphDestroy(self, graph: Any) -> tuple[Any, ...]:
        return (Error.SUCCESS,)

    def cudaGraphExecDestroy(self, graph: Any) -> tuple[Any, ...]:
        graph.clear()
        return (Error.SUCCESS,)

    def cudaGraphLaunch(self, graph: Any, stream: int) -> tuple[Any, ...]:
        works = list(graph)
        self.enqueue("launch", lambda: [work() for work in works] and None)
        return (Error.SUCCESS,)
