"""Run a bundle's graphs with ONNX Runtime, on the CPU or on a CUDA device.

Buffers are bound, not copied: a graph writes its outputs straight into the arrays that the next one reads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hart_edge.bundle.manifest import Target
from hart_edge.bundle.memory import cache_peak
from hart_edge.bundle.verify import Bundle
from hart_edge.engines.forks import NO_GPU, HomeProcess
from hart_edge.engines.onnxruntime.library import PROVIDERS, library_for, run_options, session_options
from hart_edge.engines.onnxruntime.prepared import PreparedGraphs
from hart_edge.engines.onnxruntime.session import OnnxRuntimeSession
from hart_edge.errors import EngineError
from hart_edge.runtime.allocator import return_freed_memory
from hart_edge.runtime.loop import Array

# Bytes of keys and values, and with them of activations, from which an arena is worth it: 0.7B at 256 pixels has ten
# times as much, and a picture takes a tenth less; hart-emoji has a quarter, and it would take a few per cent longer.
ARENA_FROM = 2**24


class Opened:
    """The sessions of one process, by graph; lock: held while one is made."""

    def __init__(self) -> None:
        self.home, self.lock = HomeProcess(), threading.Lock()
        self.sessions: dict[str, OnnxRuntimeSession] = {}


class OnnxRuntimeRunner:
    """One session per graph, made when the graph first runs, and made again in a child that was forked."""

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        *,
        target: Target = Target.CPU,
        arena_from: int = ARENA_FROM,
        prepared: Path | None = None,
    ) -> None:
        """threads: threads inside an operator; None leaves the choice to ONNX Runtime (one a core).

        target: where the graphs run, whatever they were built for: a check holds engines against their graphs on the
        CPU. arena_from: bytes, as above. prepared: a folder for prepared graphs. Raises EngineError where this machine
        has no ONNX Runtime for the target, or the folder cannot be used.
        """
        try:
            onnxruntime = library_for(target)
        except EngineError as error:
            raise EngineError(f"this bundle was built for {bundle.manifest.target.name}: {error}") from error
        self._library, self._provider = onnxruntime, PROVIDERS[target]
        arena = cache_peak(bundle.manifest.plan) >= arena_from
        self._new_options = partial(session_options, onnxruntime, threads, arena=arena)
        self._options = self._new_options()
        self._prepared = None if prepared is None else PreparedGraphs(prepared, onnxruntime)
        self._run_options = run_options(onnxruntime, arena=arena)
        self._bundle, self._target = bundle, target
        self._files = {str(each.name): each.file for each in bundle.manifest.components}
        self._opened = Opened()

    @property
    def open_graphs(self) -> frozenset[str]:
        """The graphs that this process has open."""
        return frozenset(self._own().sessions)

    def load(self, graph: str) -> OnnxRuntimeSession:
        """Make a graph's session now instead of at its first run. Any thread.

        Raises EngineError, and BundleError where the graph is no longer the one that was verified.
        """
        opened = self._own()
        with opened.lock:
            if graph not in opened.sessions:
                with self._bundle.opened(self._files[graph]) as path:
                    opened.sessions[graph] = self._open(graph, path)
                return_freed_memory()  # folded and packed weights leave as much behind as they are
            return opened.sessions[graph]

    def _open(self, graph: str, path: Path) -> OnnxRuntimeSession:
        if self._prepared is None:
            return self._session(graph, path, self._options)

        def write(save: Callable[[Any, Path], None], place: Path) -> None:
            options = self._new_options()
            save(options, place)
            self._session(graph, path, options)

        file, files = self._files[graph], self._bundle.manifest.files
        sums = " ".join(files[name].sha256 for name in (file, f"{file}.data") if name in files)
        with self._prepared.opened(graph, sums, write) as ready:
            options = self._new_options()
            options.graph_optimization_level = self._library.GraphOptimizationLevel.ORT_DISABLE_ALL
            return self._session(graph, ready, options)

    def _session(self, graph: str, path: Path, options: Any) -> OnnxRuntimeSession:
        return OnnxRuntimeSession(self._library, graph, path, self._provider, options, self._run_options)

    def unload(self, graph: str) -> None:
        """Give a graph's memory back; its next run loads it again."""
        self._own().sessions.pop(graph, None)

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Any thread, several at a time too."""
        self.load(graph).run_into(inputs, outputs)

    def _own(self) -> Opened:
        """What this process has open: a child that was forked begins anew."""
        if not self._opened.home.is_this():
            if self._target is Target.CUDA:
                raise EngineError(NO_GPU)
            self._opened = Opened()
        return self._opened
