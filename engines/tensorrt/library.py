"""TensorRT and TensorRT-RTX, opened: an engine file in, execution contexts out.

Every call into the library is in this file. The two libraries differ in what engines/tensorrt/facts.py says; optional
calls that came with some version (getEngineValidity, isStreamCapturable, IStreamReaderV2) are used where the installed
one has them.
"""

from __future__ import annotations

import importlib
import logging
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hart_edge.bundle.target import Target
from hart_edge.engines.tensorrt.compatibility import numbers
from hart_edge.engines.tensorrt.facts import LIBRARIES
from hart_edge.errors import EngineError

log = logging.getLogger(__name__)

BLOCK = 64 * 2**20  # bytes of an engine that are in this process's memory at a time
DIAGNOSTICS = (  # EngineInvalidityDiagnostics, bit 0 first
    "of another version",
    "of another GPU architecture",
    "the CUDA driver is too old",
    "the CUDA runtime is too old",
    "not enough GPU memory",
    "malformed",
    "CUDA itself failed",
)


class TensorRT:
    """One of the two libraries, with a runtime."""

    def __init__(self, target: Target, built_with: str | None = None) -> None:
        """built_with: the version that built the engines, for the message where the library is missing.

        Raises EngineError without the library, with one that is too old, or with one whose own parts do not load.
        """
        self.facts = facts = LIBRARIES[target]
        oldest = ".".join(map(str, facts.oldest))
        try:
            self._library: Any = importlib.import_module(facts.module)
        except (ImportError, OSError) as error:  # OSError: the package is there, a shared library of it is not
            wanted = built_with or f"{oldest} or later"
            raise EngineError(
                f"this bundle needs {facts.product} {wanted} (package {facts.package}), which cannot be "
                f"imported ({error}); {facts.remedy}"
            ) from error
        self.version = str(self._library.__version__)
        if tuple(numbers(self.version)[:2]) < facts.oldest:
            raise EngineError(f"{facts.product}: expected {oldest} or later, found {self.version}; {facts.remedy}")
        self.logger = make_logger(self._library, facts.product)
        self._runtime = self._library.Runtime(self.logger)

    def check(self, path: Path) -> None:
        """The library's own check of an engine's header. Raises EngineError; says nothing where there is none."""
        examine = getattr(self._runtime, "get_engine_validity", None)
        if examine is None:
            return
        with path.open("rb") as file:
            header = file.read(self._runtime.engine_header_size)
        validity, diagnostics = examine(header)
        if validity == self._library.EngineValidity.INVALID:
            reasons = [text for bit, text in enumerate(DIAGNOSTICS) if int(diagnostics) >> bit & 1]
            raise EngineError(
                f"{path.name}: {self.facts.product} {self.version} cannot run this engine on this machine: "
                f"{', '.join(reasons) or 'it does not say why'}; build the engines here with hart-edge engines"
            )
        if validity == self._library.EngineValidity.SUBOPTIMAL:
            log.warning("%s: this engine runs here, but one built for this GPU would be faster", path.name)

    def open(self, path: Path) -> Any:
        """An ICudaEngine, read in blocks where the library can, else from a mapped file. Raises EngineError."""
        self.check(path)
        with path.open("rb") as file:
            if hasattr(self._library, "IStreamReaderV2"):
                engine = self._runtime.deserialize_cuda_engine(make_reader(self._library, file))
            else:
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                    engine = self._runtime.deserialize_cuda_engine(data)
        if engine is None:
            raise EngineError(
                f"{path.name}: {self.facts.product} {self.version} refused this engine ({self.last_error()}); "
                "build the engines on this machine with hart-edge engines"
            )
        return engine

    def context(self, engine: Any, profile: int, stream: int, what: str) -> Any:
        """An execution context on a profile, without memory of its own. Raises EngineError."""
        strategy = self._library.ExecutionContextAllocationStrategy.USER_MANAGED
        if self.facts.compiles_on_device:
            config = engine.create_runtime_config()
            config.set_execution_context_allocation_strategy(strategy)
            config.cuda_graph_strategy = self._library.CudaGraphStrategy.DISABLED  # the runner captures whole scales
            # Now, not in the background: a picture must not depend on when a kernel was ready.
            config.dynamic_shapes_kernel_specialization_strategy = (
                self._library.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            context = engine.create_execution_context(config)
        else:
            context = engine.create_execution_context(strategy)
        if context is None or not context.set_optimization_profile_async(profile, stream):
            raise EngineError(
                f"{what}: {self.facts.product} gave no context on profile {profile} ({self.last_error()})"
            )
        return context

    def shape_inputs(self, context: Any, shapes: Mapping[str, tuple[int, ...]], what: str) -> None:
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise EngineError(
                    f"{what}: the engine's profile does not take {name} of {shape} ({self.last_error()}); "
                    "rebuild the engines"
                )

    def check_tensors(self, engine: Any, specs: Mapping[str, str], what: str) -> None:
        """The engine's tensors are those that the manifest says: a raw address carries no type. {name: dtype}."""
        found = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            found[name] = np.dtype(self._library.nptype(engine.get_tensor_dtype(name))).name
        if found != dict(specs):
            wrong = sorted(set(found.items()) ^ set(specs.items()))
            raise EngineError(f"{what}: engine and manifest disagree about {wrong[0][0]!r}; rebuild the bundle")

    def on_host(self, engine: Any, name: str) -> bool:
        """Whether TensorRT reads a tensor from the processor's memory, because a shape depends on its value."""
        return bool(engine.get_tensor_location(name) == self._library.TensorLocation.HOST)

    @staticmethod
    def activation_size(engine: Any, profile: int) -> int:
        """Bytes of memory that a context on a profile works in."""
        return int(engine.get_device_memory_size_for_profile_v2(profile))

    @staticmethod
    def capturable(context: Any, stream: int) -> bool:
        """Whether the library knows a reason against capture; a trial tells where it cannot be asked."""
        ask = getattr(context, "is_stream_capturable", None)
        return True if ask is None else bool(ask(stream))

    def last_error(self) -> str:
        return self.logger.last_error or "it gave no reason"


def make_logger(library: Any, product: str) -> Any:
    """The library's messages go to ours; the last error is kept for exceptions."""

    class Logger(library.ILogger):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.last_error = ""

        def log(self, severity: Any, message: str) -> None:
            levels = library.ILogger.Severity
            if severity in (levels.INTERNAL_ERROR, levels.ERROR):
                self.last_error = message
                log.info("%s: %s", product, message)  # an exception will say it
            elif severity == levels.WARNING:
                log.info("%s: %s", product, message)
            else:
                log.debug("%s: %s", product, message)

    return Logger()


def make_reader(library: Any, file: BinaryIO) -> Any:
    """A stream reader of a file: no copy of the whole engine lies in this process's memory."""
    whence = {
        library.SeekPosition.SET: os.SEEK_SET,
        library.SeekPosition.CUR: os.SEEK_CUR,
        library.SeekPosition.END: os.SEEK_END,
    }

    class Reader(library.IStreamReaderV2):  # type: ignore[misc]  # the library has no types
        def __init__(self) -> None:
            library.IStreamReaderV2.__init__(self)

        def read(self, num_bytes: int, stream: int) -> bytes:
            return file.read(min(num_bytes, BLOCK))

        def seek(self, offset: int, where: Any) -> bool:
            file.seek(offset, whence[where])
            return True

    return Reader()
