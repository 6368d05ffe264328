"""What every engine library offers to the build and to `hart-edge doctor`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from hart_edge.bundle.manifest import HardwareCompatibility, Target

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


Shape = tuple[int, ...]
Shapes = tuple[Shape, Shape, Shape]  # smallest, likeliest, largest


@dataclass(frozen=True)
class Profile:
    """The shapes of a graph's inputs in the steps of a scale (None: steps without one)."""

    scale: int | None
    shapes: Mapping[str, Shapes]


@dataclass(frozen=True)
class EngineSettings:
    """What engines are built for. architectures: "sm_86"...; workspace: bytes, None leaves it to the library."""

    architectures: tuple[str, ...] = ()
    images_at_once: int = 1
    workspace: int | None = None
    hardware_compatibility: HardwareCompatibility = HardwareCompatibility.NONE
    version_compatible: bool = False
    timing_cache: Path | None = None


@dataclass(frozen=True)
class BuildProgress:
    """Where a build stands: a phase of the library, and how many of its steps are done."""

    component: str
    phase: str
    done: int
    total: int
    seconds: float


Watch = Callable[[BuildProgress], None]


class EngineBuilder(Protocol):
    """An engine library that makes engines ahead of their use."""

    def availability(self) -> Availability: ...

    def version(self) -> str:
        """Of the library. Raises EngineError where it is missing."""

    def prepare(self, settings: EngineSettings) -> EngineSettings:
        """The settings with what was left open filled in.

        Raises BuildError for what the library builds nowhere, EngineError for what this machine lacks.
        """

    def build(
        self, graph: Path, profiles: Sequence[Profile], settings: EngineSettings, out: Path, watch: Watch
    ) -> dict[str, Any]:
        """Write the engine of a graph to `out` and return its report. Raises BuildError; then there is no `out`."""
