"""A graph opened in ONNX Runtime: the one place where its sessions are made and run and its exceptions become ours.

In a child that was forked a session refuses to run, and is never freed (engines/forks.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.files import path_in_text
from hart_edge.bundle.memory import shortage
from hart_edge.bundle.program import of_any_block
from hart_edge.engines.base import Arrays
from hart_edge.engines.forks import HomeProcess, keep_forever
from hart_edge.errors import EngineError

# How ONNX Runtime, the C++ library, the system and CUDA say that memory is out; engine/out_of_memory.cpp has the same.
NO_MEMORY = re.compile(
    r"bad_alloc|bad allocation|[Ff]ailed to allocate memory|[Cc]annot allocate memory|[Oo]ut of memory|"
    r"not enough memory|MemoryAllocation|ALLOC_FAILED|std::length_error|max_size"
)


CPU = "CPUExecutionProvider"
Form = tuple[tuple[int, ...], type[np.generic]]  # shape and dtype
DTYPES: Mapping[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int8)": np.int8,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
    "tensor(bool)": np.bool_,
}


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

        # What blocks leave, by the outputs' names. A device would copy it to the host, if it had a place there.
        names = (value.name for value in self._session.get_outputs())
        self._of_blocks = frozenset(name for name in names if provider == CPU and of_any_block(name) != name)

    def __del__(self, keep: Callable[[object], None] = keep_forever) -> None:
        if not self._home.is_this():
            keep(self._session)

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Arrays:
        """Compute the named outputs, or all of them. Raises EngineError."""
        names = list(outputs) if outputs is not None else [value.name for value in self._session.get_outputs()]
        with self._failures(inputs):
            if not self._of_blocks.difference(names):
                return dict(zip(names, self._session.run(names, dict(inputs), self._run_options), strict=True))
            whole = {name: np.ascontiguousarray(array) for name, array in inputs.items()}
            made = self._run_bound(whole, dict.fromkeys(names)).get_outputs()  # these first, then the unread
            return {name: value.numpy() for name, value in zip(names, made, strict=False)}

    def run_into(self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> None:
        """Compute `outputs` in place: arrays are bound, not copied, and C-contiguous. Raises EngineError."""
        with self._failures(inputs):
            self._run_bound(inputs, outputs)

    def _run_bound(self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any] | None]) -> Any:
        """The binding of a run that is done. An output without an array gets one from ONNX Runtime."""
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        written = {**outputs, **self._unread(inputs, outputs)}  # held until the run ends
        for name, place in written.items():
            if place is None:
                binding.bind_output(name)
            else:
                binding.bind_output(name, "cpu", 0, place.dtype.type, place.shape, place.ctypes.data)
        self._session.run_with_iobinding(binding, self._run_options)
        return binding

    def _unread(self, inputs: Mapping[str, NDArray[Any]], outputs: Collection[str]) -> Arrays:
        """Arrays for what blocks leave and nobody reads, one for all blocks. ONNX Runtime holds every output of a
        graph, asked for or not, until the run ends: of the last scale's 4,096 tokens at 1024 pixels 2.4 GB in float32.
        """
        left = self._of_blocks.difference(outputs)
        forms = self._forms(inputs) if left else {}
        unread = {name: (of_any_block(name), forms[name]) for name in left & forms.keys()}
        places = {place: np.empty(*place[1]) for place in set(unread.values())}
        return {name: places[place] for name, place in unread.items()}

    def _forms(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, Form]:
        """Shape and dtype of every output whose symbols the inputs tell."""
        extents: dict[str, int] = {}
        for value in self._session.get_inputs():
            given = inputs[value.name].shape if value.name in inputs else ()
            extents |= {
                symbol: size for symbol, size in zip(value.shape, given, strict=False) if isinstance(symbol, str)
            }
        found = {}
        for value in self._session.get_outputs():
            shape = [size if isinstance(size, int) else extents.get(size) for size in value.shape]
            sizes = tuple(size for size in shape if size is not None)
            if len(sizes) == len(shape) and value.type in DTYPES:
                found[value.name] = (sizes, DTYPES[value.type])
        return found

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
