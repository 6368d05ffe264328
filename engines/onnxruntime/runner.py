"""Run a bundle's graphs with ONNX Runtime, on the CPU or on a CUDA device.

Buffers are bound, not copied: a graph writes its outputs straight into the arrays that the next one reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hart_edge.bundle.manifest import Target
from hart_edge.bundle.memory import cache_peak
from hart_edge.bundle.verify import Bundle
from hart_edge.engines.onnxruntime.library import PROVIDERS, load_library, run_options, session_options
from hart_edge.errors import EngineError
from hart_edge.runtime.allocator import return_freed_memory
from hart_edge.runtime.loop import Array

MOST_THREADS = 1024
# Bytes of keys and values, and with them of activations, from which an arena is worth it: 0.7B at 256 pixels has ten
# times as much, and a picture takes a tenth less; hart-emoji has a quarter, and it would take a few per cent longer.
ARENA_FROM = 2**24


class OnnxRuntimeRunner:
    """One session per graph, made when the graph first runs."""

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        """threads: threads inside an operator; None leaves the choice to ONNX Runtime (one a core)."""
        try:
            onnxruntime = load_library()
        except ImportError as error:
            raise EngineError(
                f"this bundle needs ONNX Runtime, which is not installed ({error}); pip install 'hart-edge[cpu]'"
            ) from error
        target = bundle.manifest.target.name
        provider = PROVIDERS.get(target, PROVIDERS[Target.CPU])  # graphs for TensorRT, held against its engines
        if provider not in onnxruntime.get_available_providers():
            found = ", ".join(onnxruntime.get_available_providers())
            raise EngineError(
                f"this bundle was built for {target}: expected {provider} in ONNX Runtime "
                f"{onnxruntime.__version__}, found {found}; pip install 'hart-edge[gpu]' or build for cpu"
            )
        self._library = onnxruntime
        arena = cache_peak(bundle.manifest.plan) >= ARENA_FROM
        self._options = session_options(onnxruntime, threads, arena=arena)
        self._run_options = run_options(onnxruntime, arena=arena)
        self._provider = provider
        self._paths = {str(each.name): bundle.path(each.file) for each in bundle.manifest.components}
        self._sessions: dict[str, Any] = {}

    def load(self, graph: str) -> None:
        """Make a graph's session now instead of at its first run."""
        if graph in self._sessions:
            return
        try:
            session = self._library.InferenceSession(str(self._paths[graph]), self._options, providers=[self._provider])
        except Exception as error:  # the library's exceptions share no base of their own
            raise EngineError(
                f"{graph}: ONNX Runtime {self._library.__version__} refused this graph ({error}); "
                "update onnxruntime or rebuild the bundle"
            ) from error
        self._sessions[graph] = session
        return_freed_memory()  # folded and packed weights leave as much behind as they are

    def unload(self, graph: str) -> None:
        """Give a graph's memory back; its next run loads it again."""
        self._sessions.pop(graph, None)

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self.load(graph)
        session = self._sessions[graph]
        try:
            binding = session.io_binding()
            for name, array in inputs.items():
                binding.bind_cpu_input(name, array)
            for name, array in outputs.items():
                binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
            session.run_with_iobinding(binding, self._run_options)
        except Exception as error:  # as above
            shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items() if array.size)
            raise EngineError(f"{graph}: ONNX Runtime failed while running ({error}); inputs were {shapes}") from error


def thread_count(threads: int | None) -> int | None:
    """A checked thread count."""
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or not 1 <= threads <= MOST_THREADS:
        raise EngineError(f"threads: expected an integer from 1 to {MOST_THREADS}, or None, found {threads!r}")
    return int(threads)
