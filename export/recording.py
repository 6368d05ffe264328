"""Calls of the real loop, kept so that candidates can be run on them one after another, each at its own time.

In: an observer's calls. Out: the same inputs, and of the first prompt the outputs. They stay in memory as long as they
are few; what is more goes to files, which are read whenever a call is asked for. The KV cache of a prompt is kept once,
as long as it has grown: what a scale reads is its beginning.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

MOST_IN_MEMORY = 2**28  # bytes of inputs and outputs
PAST = ("past_key.", "past_value.", "past_null_")  # of the KV cache

Arrays = dict[str, NDArray[Any]]


@dataclass
class _Stored:
    """An array, in memory or in a file."""

    where: NDArray[Any] | Path

    def read(self) -> NDArray[Any]:
        return np.load(self.where) if isinstance(self.where, Path) else self.where


@dataclass(frozen=True)
class _Beginning:
    """The first rows of a cache (N, B, heads, head_dim), which may still grow."""

    cache: _Stored
    rows: int

    def read(self) -> NDArray[Any]:
        where = self.cache.where
        whole = np.load(where, mmap_mode="r") if isinstance(where, Path) else where
        return np.array(whole[: self.rows])


_Kept = Mapping[str, _Stored | _Beginning]


@dataclass(frozen=True)
class Call:
    """One call of a graph. inputs, outputs: read anew each time.

    outputs: what the reference made of them, {} beyond the first prompt; wanted: their names.
    """

    _inputs: _Kept
    _outputs: _Kept = field(default_factory=dict)

    @property
    def inputs(self) -> Arrays:
        return {name: stored.read() for name, stored in self._inputs.items()}

    @property
    def outputs(self) -> Arrays:
        return {name: stored.read() for name, stored in self._outputs.items()}

    @property
    def wanted(self) -> list[str]:
        return list(self._outputs)


class Recording:
    """An observer that keeps the calls of some graphs, in order. Call end_prompt() after each prompt."""

    def __init__(self, folder: Path, graphs: Collection[str]) -> None:
        """folder: for what does not stay in memory; it is made."""
        self.folder = folder
        self._calls: dict[str, list[Call]] = {graph: [] for graph in graphs}
        self._first: dict[str, int] = {}  # how many of them are the first prompt's
        self._caches: dict[str, _Stored] = {}  # of the prompt that is running
        self._bytes = self._files = 0
        folder.mkdir()

    def __call__(self, graph: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        if graph not in self._calls:
            return
        wanted = {} if self._first else outputs
        self._calls[graph].append(Call(self._kept(graph, inputs), self._kept(graph, wanted)))

    def end_prompt(self) -> None:
        for cache in self._caches.values():
            assert not isinstance(cache.where, Path)  # until now
            cache.where = self._place(cache.where)
        self._caches.clear()
        if not self._first:
            self._first = {graph: len(calls) for graph, calls in self._calls.items()}

    def first(self, graph: str) -> list[Call]:
        """The calls of the first prompt."""
        return self._calls[graph][: self._first[graph]]

    def calls(self, graph: str) -> list[Call]:
        """The calls of a graph, in order."""
        return self._calls[graph]

    def _kept(self, graph: str, tensors: Mapping[str, Tensor]) -> _Kept:
        kept: dict[str, _Stored | _Beginning] = {}
        for name, tensor in tensors.items():
            if name.startswith(PAST):
                cache = self._caches.setdefault(f"{graph} {name}", _Stored(tensor.numpy()))
                assert not isinstance(cache.where, Path)  # it has its place at the prompt's end
                if len(tensor) > len(cache.where):
                    cache.where = tensor.numpy()
                kept[name] = _Beginning(cache, len(tensor))
            else:
                kept[name] = _Stored(self._place(tensor.numpy()))
        return kept

    def _place(self, array: NDArray[Any]) -> NDArray[Any] | Path:
        if self._bytes + array.nbytes <= MOST_IN_MEMORY:
            self._bytes += array.nbytes
            return array
        path = self.folder / f"{self._files}.npy"
        self._files += 1
        np.save(path, array)
        return path
