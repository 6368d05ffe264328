"""Run a bundle's graphs with ONNX Runtime, on the CPU or on a CUDA device.

Buffers are bound, not copied: a graph writes its outputs straight into the arrays that the next one reads.
"""

from __future__ import annotations

from collections.abc import Mapping

from hart_edge.bundle.manifest import Target
from hart_edge.bundle.memory import cache_peak
from hart_edge.bundle.verify import Bundle
from hart_edge.engines.onnxruntime.library import PROVIDERS, library_for, run_options, session_options
from hart_edge.engines.onnxruntime.session import OnnxRuntimeSession
from hart_edge.errors import EngineError
from hart_edge.runtime.allocator import return_freed_memory
from hart_edge.runtime.loop import Array

# Bytes of keys and values, and with them of activations, from which an arena is worth it: 0.7B at 256 pixels has ten
# times as much, and a picture takes a tenth less; hart-emoji has a quarter, and it would take a few per cent longer.
ARENA_FROM = 2**24


class OnnxRuntimeRunner:
    """One session per graph, made when the graph first runs."""

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        *,
        target: Target = Target.CPU,
        arena_from: int = ARENA_FROM,
    ) -> None:
        """threads: threads inside an operator; None leaves the choice to ONNX Runtime (one a core).

        target: where the graphs run, whatever they were built for: a check holds engines against their graphs on the
        CPU. arena_from: bytes, as above. Raises EngineError where this machine has no ONNX Runtime for the target.
        """
        try:
            onnxruntime = library_for(target)
        except EngineError as error:
            raise EngineError(f"this bundle was built for {bundle.manifest.target.name}: {error}") from error
        self._library, self._provider = onnxruntime, PROVIDERS[target]
        arena = cache_peak(bundle.manifest.plan) >= arena_from
        self._options = session_options(onnxruntime, threads, arena=arena)
        self._run_options = run_options(onnxruntime, arena=arena)
        self._paths = {str(each.name): bundle.path(each.file) for each in bundle.manifest.components}
        self._sessions: dict[str, OnnxRuntimeSession] = {}

    def load(self, graph: str) -> None:
        """Make a graph's session now instead of at its first run."""
        if graph in self._sessions:
            return
        path, options = self._paths[graph], (self._options, self._run_options)
        self._sessions[graph] = OnnxRuntimeSession(self._library, graph, path, self._provider, *options)
        return_freed_memory()  # folded and packed weights leave as much behind as they are

    def unload(self, graph: str) -> None:
        """Give a graph's memory back; its next run loads it again."""
        self._sessions.pop(graph, None)

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self.load(graph)
        self._sessions[graph].run_into(inputs, outputs)
