"""Work that is the same for every picture becomes a CUDA graph: enqueued once, captured once, launched ever after.

In: a function that enqueues on the stream. Out: the same work done, with fewer calls where it can be captured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hart_edge.engines.tensorrt.cuda import Cuda, CudaError
from hart_edge.errors import EngineError

log = logging.getLogger(__name__)

CAPTURED_AT = 2  # the first run settles what an engine does lazily, and must not be captured


@dataclass
class Capture:
    """Runs so far, and the graph once there is one."""

    runs: int = 0
    graph: Any = None


class Captures:
    """One graph for each number, on one device."""

    def __init__(self, cuda: Cuda) -> None:
        self._cuda = cuda
        self._found: dict[int, Capture] = {}

    def run(self, number: int, label: str, enqueue: Callable[[], None], allowed: Callable[[], bool]) -> None:
        """Do the work: by its graph, or by `enqueue`, which must enqueue the same each time it is called.

        allowed: asked once, whether a graph may be made. label: what the log calls it where it cannot.
        """
        state = self._found.setdefault(number, Capture())
        state.runs += 1
        if state.runs == CAPTURED_AT and allowed():
            state.graph = self._capture(label, enqueue)
        if state.graph is None:
            enqueue()
        else:
            self._cuda.launch(state.graph)

    def numbers(self) -> list[int]:
        """Of those that are graphs by now."""
        return [number for number, state in sorted(self._found.items()) if state.graph is not None]

    def drop(self) -> None:
        """Graphs hold addresses; when one has changed, all are captured again."""
        for state in self._found.values():
            if state.graph is not None:
                self._cuda.destroy(state.graph)
        self._found.clear()

    def _capture(self, label: str, enqueue: Callable[[], None]) -> Any:
        """The work as a graph, None where it cannot be one. Capturing runs nothing."""
        self._cuda.begin_capture()
        reason: EngineError | None = None
        try:
            enqueue()
        except EngineError as error:
            reason = error
        try:
            graph = self._cuda.end_capture()
        except CudaError as error:
            reason, graph = reason or error, None
        if reason is None:
            return graph
        if graph is not None:
            self._cuda.destroy(graph)
        log.info("%s is enqueued step by step, because it cannot be a CUDA graph: %s", label, reason)
        return None
