"""A fake of TensorRT's Python module, as far as engines/tensorrt/library.py calls it, which computes by ONNX Runtime.

An "engine" is a header of 64 bytes and JSON that names the graph it stands for. Contexts read and write raw addresses
when the stream of FakeCuda reaches them, and enforce TensorRT's rules: shapes inside the profile, an address for every
tensor, only device memory (inside one allocation), and activation memory before any work.
"""

from __future__ import annotations

import ctypes
import json
import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tests.engines.tensorrt.fake_cuda import FakeCuda

HEADER = 64
DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}
Profiles = Sequence[Mapping[str, Sequence[int]]]  # per profile the one shape of every input


class Severity(Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class EngineValidity(Enum):
    VALID, SUBOPTIMAL, INVALID = range(3)


class Strategy(Enum):
    STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)


class Location(Enum):
    DEVICE, HOST = range(2)


class Seek(Enum):
    SET, CUR, END = range(3)


class Logger:
    """A base class for callers; a method that they do not override raises."""

    Severity = Severity

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class StreamReader:
    """A base class for callers, like Logger."""

    def read(self, num_bytes: int, stream: int) -> bytes:
        raise NotImplementedError

    def seek(self, offset: int, where: Seek) -> bool:
        raise NotImplementedError


def engine_bytes(graph: Path, profiles: Profiles, activations: int = 1000, validity: int = 0) -> bytes:
    """validity: diagnostics of the header, 0 for an engine that is valid."""
    header = b"FAKE" + validity.to_bytes(1, "little") + bytes(HEADER - 5)
    body = {"graph": str(graph), "profiles": [dict(each) for each in profiles], "activations": activations}
    return header + json.dumps(body).encode()


class Context:
    def __init__(self, engine: Engine, managed: bool) -> None:
        self.engine, self.managed = engine, managed
        self.profile, self.memory = -1, (0, 0)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self.profile = profile
        return 0 <= profile < len(self.engine.profiles)

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = address, size

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        expected = tuple(self.engine.profiles[self.profile][name])
        if shape != expected:
            self.engine.fake.complain(f"{name}: {shape} is not in the profile, which takes {expected}")
            return False
        self.shapes[name] = shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes[name] if name in self.shapes else self._trial()[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        if name not in self.engine.tensors or address == 0 or (address % 256 and name not in self.engine.fake.on_host):
            return False
        self.addresses[name] = address
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self.engine.name not in self.engine.fake.not_capturable

    def execute_async_v3(self, stream: int) -> bool:
        fake, cuda = self.engine.fake, self.engine.fake.cuda
        missing = self.engine.tensors.keys() - self.addresses.keys()
        if missing or self.memory[1] < self.engine.activations or not cuda.holds(*self.memory):
            fake.complain(f"{self.engine.name}: no address for {sorted(missing)}, or too little memory")
            return False
        if cuda.capturing is not None and self.engine.name in fake.spoils_capture:
            cuda.spoiled = True
            fake.complain(f"{self.engine.name}: an operation that cannot be captured")
            return False
        cuda.enqueue(self.engine.name, self._run)
        return True

    def _run(self) -> None:
        inputs = {name: self._view(name, self.shapes[name]).copy() for name in self.engine.inputs}
        self._spill()
        for name, array in zip(self.engine.outputs, self.engine.session.run(None, inputs), strict=True):
            self._view(name, array.shape)[...] = array

    def _spill(self) -> None:
        """Overwrite the activation memory, so that anything else that was put there is lost."""
        ctypes.memset(self.memory[0], 0xCD, self.engine.activations)

    def _view(self, name: str, shape: tuple[int, ...]) -> Any:
        dtype = np.dtype(self.engine.tensors[name])
        size = int(np.prod(shape)) * dtype.itemsize
        address = self.addresses[name]
        assert name in self.engine.fake.on_host or self.engine.fake.cuda.holds(address, size), f"{name} is not there"
        block = (ctypes.c_char * max(size, 1)).from_address(address)
        return np.frombuffer(block, dtype, int(np.prod(shape))).reshape(shape)

    def _trial(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the outputs, found by computing them."""
        inputs = {name: np.zeros(shape, self.engine.tensors[name]) for name, shape in self.shapes.items()}
        if "top_k" in inputs:
            inputs["top_k"][...] = 1
        found = self.engine.session.run(None, inputs)
        return {name: array.shape for name, array in zip(self.engine.outputs, found, strict=True)}


class Engine:
    def __init__(self, fake: FakeTensorRT, data: bytes) -> None:
        body = json.loads(data[HEADER:])
        self.fake, self.name = fake, Path(body["graph"]).stem
        self.profiles, self.activations = body["profiles"], body["activations"]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(body["graph"], options, providers=["CPUExecutionProvider"])
        self.inputs = [each.name for each in self.session.get_inputs()]
        self.outputs = [each.name for each in self.session.get_outputs()]
        every = (*self.session.get_inputs(), *self.session.get_outputs())
        self.tensors = {each.name: DTYPES[each.type] for each in every}
        self.num_io_tensors = len(every)

    def get_tensor_name(self, index: int) -> str:
        return [*self.inputs, *self.outputs][index]

    def get_tensor_dtype(self, name: str) -> Any:
        return self.tensors[name]

    def get_tensor_location(self, name: str) -> Location:
        return Location.HOST if name in self.fake.on_host else Location.DEVICE

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return int(self.activations) if profile == len(self.profiles) - 1 else 1

    def create_runtime_config(self) -> Any:
        config = types.SimpleNamespace(strategy=None)
        config.set_execution_context_allocation_strategy = lambda strategy: setattr(config, "strategy", strategy)
        return config

    def create_execution_context(self, given: Any) -> Context:
        strategy = given if isinstance(given, Strategy) else given.strategy
        assert strategy is Strategy.USER_MANAGED
        return Context(self, True)


class FakeTensorRT:
    """The module. on_host: inputs whose values are shapes. not_capturable: graphs that the library says it cannot
    capture; spoils_capture: graphs whose capture fails."""

    ILogger = Logger
    EngineValidity = EngineValidity
    ExecutionContextAllocationStrategy = Strategy
    TensorLocation = Location
    SeekPosition = Seek
    CudaGraphStrategy = types.SimpleNamespace(DISABLED=0)
    DynamicShapesKernelSpecializationStrategy = types.SimpleNamespace(EAGER=1)

    def __init__(
        self, cuda: FakeCuda, version: str = "1.7.1.116", *, streams: bool = True, validity: bool = True
    ) -> None:
        self.cuda, self.__version__ = cuda, version
        self.on_host: set[str] = set()
        self.not_capturable: set[str] = set()
        self.spoils_capture: set[str] = set()
        self.logger: Logger
        self.opened: list[str] = []
        self.validity = validity
        if streams:
            self.IStreamReaderV2 = StreamReader

    def complain(self, message: str) -> None:
        self.logger.log(Severity.ERROR, message)

    def nptype(self, dtype: Any) -> Any:
        return dtype

    def Runtime(self, logger: Logger) -> Any:  # noqa: N802  # the name is TensorRT's
        self.logger = logger
        runtime = types.SimpleNamespace(deserialize_cuda_engine=self._deserialize, engine_header_size=HEADER)
        if self.validity:
            runtime.get_engine_validity = self._examine
        return runtime

    def _examine(self, header: bytes) -> tuple[EngineValidity, int]:
        diagnostics = header[4] if header[:4] == b"FAKE" else 32
        return (EngineValidity.INVALID if diagnostics else EngineValidity.VALID), diagnostics

    def _deserialize(self, given: Any) -> Engine | None:
        if isinstance(given, StreamReader):
            given.seek(0, Seek.SET)
            data = b""
            while block := given.read(100, 0):
                data += block
        else:
            data = bytes(given)
        if data[:4] != b"FAKE":
            self.complain("this is no engine")
            return None
        engine = Engine(self, data)
        self.opened.append(engine.name)
        return engine
