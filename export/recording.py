"""Calls of the real loop on disk, so that candidates can be run on them one after another, each at its own time.

In: an observer's calls. Out: the same inputs and outputs, mapped from files: memory holds what is being read.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Call:
    """One call of a graph: its inputs, and what the reference made of them."""

    inputs: Arrays
    outputs: Arrays


class Recording:
    """An observer that keeps the calls of some graphs in a folder, in order."""

    def __init__(self, folder: Path, graphs: Collection[str]) -> None:
        self.folder = folder
        self._counts = dict.fromkeys(graphs, 0)
        self._first = dict(self._counts)  # how many of them are the first prompt's
        self._prompts = 0
        folder.mkdir()

    def __call__(self, graph: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        if graph not in self._counts:
            return
        for side, tensors in (("in", inputs), ("out", outputs)):
            place = self._place(graph, self._counts[graph], side)
            place.mkdir(parents=True)
            for name, tensor in tensors.items():
                np.save(place / f"{name}.npy", tensor.numpy())
        self._counts[graph] += 1

    def end_prompt(self) -> None:
        self._prompts += 1
        if self._prompts == 1:
            self._first = dict(self._counts)

    def first(self, graph: str) -> list[Call]:
        """The calls of the first prompt."""
        return list(itertools.islice(self.calls(graph), self._first[graph]))

    def calls(self, graph: str) -> Iterator[Call]:
        """The calls of a graph, in order."""
        for index in range(self._counts[graph]):
            yield Call(*(_read(self._place(graph, index, side)) for side in ("in", "out")))

    def _place(self, graph: str, index: int, side: str) -> Path:
        return self.folder / graph / str(index) / side


def _read(place: Path) -> Arrays:
    # An empty array has no bytes to map.
    return {path.stem: np.load(path, mmap_mode="r" if path.stat().st_size > 128 else None) for path in place.iterdir()}
