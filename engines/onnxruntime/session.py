"""A graph opened in ONNX Runtime: the one place where its sessions are made and run and its exceptions become ours.

In a child that was forked a session refuses to run, and is never freed (engines/forks.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hart_edge.bundle.files import path_in_text
from hart_edge.bundle.memory import shortage
from hart_edge.engines.base import Arrays
from hart_edge.engines.forks import HomeProcess, keep_forever
from hart_edge.errors import EngineError

# How ONNX Runtime, the C++ library, the system and CUDA say that memory is out; engine/out_of_memory.cpp has the same.
NO_MEMORY = re.compile(
    r"bad_alloc|bad allocation|[Ff]ailed to allocate memory|[Cc]annot allocate memory|[Oo]ut of memory|"
    r"not enough memory|MemoryAllocation|ALLOC_FAILED|std::length_error|max_size"
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a library failed for want of memory, whatever it calls that."""
    return isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) is not None


class OnnxRuntimeSession:
    """A graph, which builds run for new arrays and a runner for arrays that are there."""

    def __init__(
        self, onnxruntime: Any, name: str, graph: Path, provider: str, session_options: Any, run_options: Any
    ) -> None:
        """onnxruntime: the module; the options are its own. Raises EngineError for a graph that it refuses."""
        self._name, self._run_options = name, run_options
        self._session: Any = None
        self._home = HomeProcess()
        try:
            with path_in_text(graph) as path:
                self._session = onnxruntime.InferenceSession(path, session_options, providers=[provider])
        except Exception as error:  # the library's exceptions share no base of their own
            if is_out_of_memory(error):
                raise shortage(f"{name}: {error}") from error
            raise EngineError(
                f"{self._name}: ONNX Runtime {onnxruntime.__version__} refused this graph ({error}); "
                "update onnxruntime or rebuild the bundle"
            ) from error

    def __del__(self, keep: Callable[[object], None] = keep_forever) -> None:
        if not self._home.is_this():
            keep(self._session)

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Arrays:
        """Compute the named outputs, or all of them. Raises EngineError."""
        names = list(outputs) if outputs is not None else [value.name for value in self._session.get_outputs()]
        with self._failures(inputs):
            return dict(zip(names, self._session.run(names, dict(inputs), self._run_options), strict=True))

    def run_into(self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> None:
        """Compute `outputs` in place: arrays are bound, not copied, and C-contiguous. Raises EngineError."""
        with self._failures(inputs):
            binding = self._session.io_binding()
            for name, array in inputs.items():
                binding.bind_cpu_input(name, array)
            for name, array in outputs.items():
                binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
            self._session.run_with_iobinding(binding, self._run_options)

    @contextmanager
    def _failures(self, inputs: Mapping[str, NDArray[Any]]) -> Iterator[None]:
        if not self._home.is_this():
            raise EngineError(
                f"{self._name}: expected the process that opened this graph, found a fork of it, which ONNX Runtime's "
                "threads do not survive; open it there"
            )
        try:
            yield
        except Exception as error:  # as above
            if is_out_of_memory(error):
                raise shortage(f"{self._name}: {error}") from error
            shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items() if array.size) or "empty"
            raise EngineError(
                f"{self._name}: ONNX Runtime failed while running ({error}); inputs were {shapes}"
            ) from error
