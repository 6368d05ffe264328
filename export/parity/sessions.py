"""The graphs that a check runs, opened when they are first asked for.

In: files of graphs. Out: a mapping of sessions for compare.py. A session of ONNX Runtime holds the graph's weights
packed anew, beside the reference's own: all graphs at once would be a second model in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from hart_edge.bundle.manifest import Plan
from hart_edge.engines.base import EngineLibrary, Session


class Sessions(Mapping[str, Session]):
    """Sessions by graph. A graph outside the loop over scales is closed when another one is asked for."""

    def __init__(self, paths: Mapping[str, Path], library: EngineLibrary, plans: Iterable[Plan]) -> None:
        """plans: tell which graphs take turns, and so stay open once they are."""
        self._paths, self._library = paths, library
        calls = [Counter(str(step.graph) for step in plan.steps) for plan in plans]
        self._loop = frozenset(graph for each in calls for graph, count in each.items() if count > 1)
        self._open: dict[str, Session] = {}

    def __getitem__(self, graph: str) -> Session:
        """Opens a graph. Raises EngineError with the library's reason."""
        if graph not in self._open:
            self._open = {name: session for name, session in self._open.items() if name in self._loop}
            self._open[graph] = self._library.open(self._paths[graph])
        return self._open[graph]

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)
