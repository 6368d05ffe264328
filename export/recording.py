"""Calls of the real loop, kept so that candidates can be run on them one after another, each at its own time.

In: an observer's calls. Out: the same inputs, and of the first prompt the outputs. They stay in memory as long as they
are few; what is more goes to files, which are mapped when they are read.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

MOST_IN_MEMORY = 2**28  # bytes of inputs and outputs

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Call:
    """One call of a graph: its inputs, and what the reference made of them; {} beyond the first prompt."""

    inputs: Arrays
    outputs: Arrays


class Recording:
    """An observer that keeps the calls of some graphs, in order. Call end_prompt() after each prompt."""

    def __init__(self, folder: Path, graphs: Collection[str]) -> None:
        """folder: for what does not stay in memory; it is made."""
        self.folder = folder
        self._calls: dict[str, list[Call]] = {graph: [] for graph in graphs}
        self._first: dict[str, int] = {}  # how many of them are the first prompt's
        self._bytes = self._files = 0
        folder.mkdir()

    def __call__(self, graph: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        if graph not in self._calls:
            return
        wanted = {} if self._first else outputs
        self._calls[graph].append(Call(self._kept(inputs), self._kept(wanted)))

    def end_prompt(self) -> None:
        if not self._first:
            self._first = {graph: len(calls) for graph, calls in self._calls.items()}

    def first(self, graph: str) -> list[Call]:
        """The calls of the first prompt."""
        return self._calls[graph][: self._first[graph]]

    def calls(self, graph: str) -> list[Call]:
        """The calls of a graph, in order."""
        return self._calls[graph]

    def _kept(self, tensors: Mapping[str, Tensor]) -> Arrays:
        return {name: self._array(tensor.numpy()) for name, tensor in tensors.items()}

    def _array(self, array: NDArray[Any]) -> NDArray[Any]:
        if self._bytes + array.nbytes <= MOST_IN_MEMORY or not array.size:  # an empty one has no bytes to map
            self._bytes += array.nbytes
            return array
        path = self.folder / f"{self._files}.npy"
        self._files += 1
        np.save(path, array)
        return np.load(path, mmap_mode="r")
