"""Which engine library serves which target, and what this machine can use.

Every library brings its own entries (engines/NAME/entry.py); a further one is added to REGISTRY here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hart_edge.bundle.manifest import Target
from hart_edge.engines.base import Availability, EngineBuilder, EngineLibrary, Entry
from hart_edge.engines.onnxruntime import entry as onnxruntime
from hart_edge.engines.tensorrt import entry as tensorrt
from hart_edge.errors import BuildError


class Registry:
    """The entries of engine libraries, one a target. It never changes: `replaced` makes another."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = {entry.target: entry for entry in entries}

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __getitem__(self, target: Target) -> Entry:
        return self._entries[target]

    def replaced(self, *entries: Entry) -> Registry:
        """A registry in which these entries stand for their targets."""
        return Registry((self._entries | {entry.target: entry for entry in entries}).values())

    def library(self, target: Target) -> EngineLibrary:
        """The library that runs graphs of a target on this machine: its own, or the CPU's if they become engines."""
        own = self[target].library or self[Target.CPU].library
        assert own is not None  # the CPU's runs graphs
        return own

    def builder(self, target: Target) -> EngineBuilder:
        """The library that makes engines for a target. Raises BuildError for a target whose graphs run as they are."""
        found = self[target].builder
        if found is None:
            made = " and ".join(self.engine_targets())
            raise BuildError(f"target {target}: its graphs run as they are; engines are made for {made}")
        return found

    def engine_targets(self) -> list[Target]:
        """The targets whose bundles hold engines."""
        return [entry.target for entry in self if entry.builder is not None]

    def survey(self) -> list[Availability]:
        """Every target, and whether this machine can use it."""
        return [entry.availability() for entry in self]


REGISTRY = Registry((*onnxruntime.ENTRIES, *tensorrt.ENTRIES))
