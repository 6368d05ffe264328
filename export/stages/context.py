"""What every stage of a build is given besides the results of the stages before it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hart_edge.bundle.settings import Speed
from hart_edge.engines.base import EngineLibrary, Entry
from hart_edge.errors import BuildError
from hart_edge.export.options import BuildOptions, Progress, StepDone
from hart_edge.export.tools import Tools


@dataclass
class Step:
    """A step that is running. size: bytes that it wrote or read, to be set where that says something."""

    size: int | None = None


@dataclass(frozen=True)
class BuildContext:
    """What was asked for, the target's entry, the library that runs its graphs here, whom to tell, when it began."""

    options: BuildOptions
    entry: Entry
    library: EngineLibrary
    progress: Progress
    tools: Tools
    started: float  # time.monotonic()

    @property
    def speeds(self) -> tuple[Speed, ...]:
        """Those that the target's bundles have."""
        return tuple(Speed) if self.entry.graphs.speeds else (Speed.EXACT,)

    @contextmanager
    def step(self, label: str) -> Iterator[Step]:
        """Tell that a step begins and, where it ends well, how long it took."""
        self.progress(label)
        begin, step = time.monotonic(), Step()
        yield step
        self.progress(StepDone(label, time.monotonic() - begin, step.size))

    def say(self, line: str) -> None:
        """Tell what a user should know."""
        self.progress(StepDone(line, 0.0, None))


def open_context(options: BuildOptions, progress: Progress, tools: Tools) -> BuildContext:
    """Raises BuildError where graphs of the target cannot run on this machine."""
    library = tools.registry.library(options.target)
    found = library.availability()
    if not found.usable:
        raise BuildError(f"target {options.target} cannot be checked on this machine: {found.detail}")
    return BuildContext(options, tools.registry[options.target], library, progress, tools, time.monotonic())
