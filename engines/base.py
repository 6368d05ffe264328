"""What every engine library offers to the build and to `hart-edge doctor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from runtime.manifest import Target

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Availability:
    """Whether this machine can run bundles for a target; detail is the version, or why not and what to do."""

    target: Target
    usable: bool
    detail: str


class Session(Protocol):
    """An opened graph."""

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> Arrays:
        """Compute the named outputs, or all of them. Raises EngineError."""


class EngineLibrary(Protocol):
    """One engine library on one target."""

    def availability(self) -> Availability: ...

    def open(self, graph: Path) -> Session:
        """Make a graph runnable on this machine. Raises EngineError with the library's reason."""
