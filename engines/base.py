"""What an engine library is to the rest of the program: its entry in the registry, and the protocols behind it.

A library runs graphs as they are (EngineLibrary) or makes engines of them ahead of their use (EngineBuilder); both open
a Runner for bundles. docs/adding-an-engine.md lists what a further library touches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from hart_edge.bundle.manifest import HardwareCompatibility, Manifest, Precision, Target
from hart_edge.bundle.memory import MemoryRules
from hart_edge.bundle.verify import Bundle
from hart_edge.runtime.loop import Runner

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
    """An engine library that runs graphs as they are."""

    def availability(self) -> Availability: ...

    def open(self, graph: Path, *, in_order: bool = False) -> Session:
        """Make a graph runnable on this machine. Raises EngineError with the library's reason.

        in_order: its nodes run in the order of the file, as far as their inputs are there.
        """


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
    """Where a build stands: what goes on with a component, a phase of the library mostly, and how many of its steps are
    done."""

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

    def check_precision(self, precision: Precision, settings: EngineSettings) -> None:
        """Raise BuildError for a precision that these GPUs cannot compute at, before any graph is traced."""

    def check_graphs(self, manifest: Manifest, settings: EngineSettings) -> None:
        """Raise BuildError for a bundle of graphs that the library can make no engines of for these GPUs."""

    def prepare(self, settings: EngineSettings) -> EngineSettings:
        """The settings with what was left open filled in.

        Raises BuildError for what the library builds nowhere, EngineError for what this machine lacks.
        """

    def build(
        self, graph: Path, profiles: Sequence[Profile], settings: EngineSettings, out: Path, watch: Watch
    ) -> dict[str, Any]:
        """Write the engine of a graph to `out` and return its report. Raises BuildError; then there is no `out`."""


class OpenRunner(Protocol):
    """How a bundle is opened. Heavy modules are imported when it is called."""

    def __call__(
        self, bundle: Bundle, *, threads: int | None, low_memory: bool, prepared: Path | None = None
    ) -> Runner:
        """A runner of a verified bundle. prepared: a folder for graphs, of entries that prepare some.

        Raises EngineError where this machine cannot run it, with the reason.
        """


@dataclass(frozen=True)
class GraphTraits:
    """The graphs that a library runs well: calib chooses the scheme of every component by it, export what it traces.

    fp16_tensors: FP16 holds tensors, where other libraries have FP16 weights alone, cast where they are used.
    int8_activations: INT8 products take INT8 activations: S8S8 beside FP16 tensors, else U8S8 (the operands of x86
    VNNI); without them INT8 is weight-only. no_float32_products: GPU architectures that have none.
    """

    fp16_tensors: bool
    int8_activations: bool
    no_float32_products: frozenset[str] = frozenset()
    fused_attention: bool = False  # ONNX Runtime's attention operator may stand in them, for large pictures
    speeds: bool = False  # bundles have the plans of all speeds; engines, of one profile a scale, have the exact one
    tensorrt_parser: bool = False  # they are checked against the rules of TensorRT's parser (export/tensorrt_lint)


@dataclass(frozen=True)
class Entry:
    """One engine library on one target: all that the rest of the program asks about either.

    Bundles hold graphs where `library` runs them, and engines where `builder` makes them. One of the two is None.
    prepares: graphs can be kept as the library has them once they are open.
    """

    target: Target
    graphs: GraphTraits
    memory: MemoryRules
    open_runner: OpenRunner
    library: EngineLibrary | None = None
    builder: EngineBuilder | None = None
    prepares: bool = False

    def __post_init__(self) -> None:
        if (self.library is None) == (self.builder is None):
            raise ValueError(f"{self.target}: expected a library that runs graphs or a builder of engines, one of them")

    def availability(self) -> Availability:
        """Whether this machine can use the target: run graphs, or make engines and run them."""
        used = self.library or self.builder
        assert used is not None  # as __post_init__ has checked
        return used.availability()
