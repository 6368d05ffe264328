"""What the reference made of the parity prompts: computed once, and shown to every stage that compares with it.

In: the calls that a Recorder observes. Out: a Recording of the same calls, in order or by graph, each at its own time.
They stay in memory as long as they are few; what is more goes to files, which are read whenever a call is asked for.
The KV cache of a prompt is kept once, at its full length: what a scale reads is its beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.plan import ComponentName
from hart_edge.calib.scheme import PAST_CACHE
from hart_edge.export.run_plan import Observe

MOST_IN_MEMORY = 2**28  # bytes of inputs and outputs
ALL, FIRST = slice(None), slice(1)  # prompts

Arrays = dict[str, NDArray[Any]]


@dataclass
class _Stored:
    """An array, in memory or in a file."""

    where: NDArray[Any] | Path

    def read(self) -> NDArray[Any]:
        return np.load(self.where) if isinstance(self.where, Path) else self.where


@dataclass(frozen=True)
class _Beginning:
    """The first rows of a cache (N, B, heads, head_dim), which grows until its prompt ends."""

    cache: _Stored
    rows: int

    def read(self) -> NDArray[Any]:
        where = self.cache.where
        whole = np.load(where, mmap_mode="r") if isinstance(where, Path) else where
        return np.array(whole[: self.rows])


_Kept = Mapping[str, _Stored | _Beginning]


@dataclass(frozen=True)
class Call:
    """One call of a graph. inputs, outputs: read anew each time; wanted: the names of its outputs."""

    graph: str
    _inputs: _Kept
    _outputs: _Kept

    @property
    def inputs(self) -> Arrays:
        return {name: stored.read() for name, stored in self._inputs.items()}

    @property
    def outputs(self) -> Arrays:
        return {name: stored.read() for name, stored in self._outputs.items()}

    @property
    def wanted(self) -> list[str]:
        return list(self._outputs)


@dataclass(frozen=True)
class Recording:
    """Every call of the loop, prompt by prompt."""

    prompts: tuple[tuple[Call, ...], ...]

    def calls(self, graph: str, prompts: slice = ALL) -> list[Call]:
        """The calls of a graph, in order, for all prompts or some."""
        return [call for prompt in self.prompts[prompts] for call in prompt if call.graph == graph]

    def show(self, observe: Observe, prompts: slice = ALL) -> None:
        """Show every call once more, for all prompts or some: those of the text model, whose graph may be the largest,
        before all others, so that it is opened once; then prompt by prompt in order."""
        shown = self.prompts[prompts]
        first = [call for prompt in shown for call in prompt if call.graph == ComponentName.TEXT_MODEL]
        then = [call for prompt in shown for call in prompt if call.graph != ComponentName.TEXT_MODEL]
        for call in (*first, *then):
            observe(call.graph, call.inputs, call.outputs)


class Recorder:
    """Observes a loop and keeps every call. Call end_prompt() after each prompt, and recording() in the end."""

    def __init__(self, folder: Path, most_in_memory: int = MOST_IN_MEMORY) -> None:
        """folder: for what does not stay in memory; it is made. most_in_memory: bytes."""
        self.folder, self._most = folder, most_in_memory
        self._prompts: list[tuple[Call, ...]] = []
        self._running: list[Call] = []
        self._caches: dict[str, _Stored] = {}  # of the prompt that is running
        self._bytes = self._files = 0
        folder.mkdir()

    def __call__(self, graph: str, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> None:
        self._running.append(Call(graph, self._kept(graph, inputs), self._kept(graph, outputs)))

    def end_prompt(self) -> None:
        for cache in self._caches.values():
            assert not isinstance(cache.where, Path)  # until now
            cache.where = self._place(cache.where)
        self._caches.clear()
        self._prompts.append(tuple(self._running))
        self._running = []

    def recording(self) -> Recording:
        """The prompts that have ended."""
        return Recording(tuple(self._prompts))

    def _kept(self, graph: str, arrays: Mapping[str, NDArray[Any]]) -> _Kept:
        kept: dict[str, _Stored | _Beginning] = {}
        for name, array in arrays.items():
            if name.startswith(PAST_CACHE) and array.size:  # without rows, the unconditional branch has another shape
                cache = self._caches.setdefault(f"{graph} {name}", _Stored(array))
                assert not isinstance(cache.where, Path)  # it has its place at the prompt's end
                if len(array) > len(cache.where):
                    cache.where = array
                kept[name] = _Beginning(cache, len(array))
            else:
                kept[name] = _Stored(self._place(array))
        return kept

    def _place(self, array: NDArray[Any]) -> NDArray[Any] | Path:
        """Where an array stays: in memory, by itself and not as a part of the loop's KV cache, or in a file."""
        if self._bytes + array.nbytes <= self._most:
            self._bytes += array.nbytes
            is_part = isinstance(array.base, np.ndarray) and array.base.nbytes > array.nbytes
            return array.copy() if is_part else array
        path = self.folder / f"{self._files}.npy"
        self._files += 1
        np.save(path, array)
        return path
