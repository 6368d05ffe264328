"""What measurements need of a recorded call: its inputs, and what the reference made of them."""

from __future__ import annotations

from typing import Protocol

from hart_edge.engines.base import Arrays


class RecordedCall(Protocol):
    """One call of a graph in the real loop."""

    @property
    def inputs(self) -> Arrays:
        """Arrays by name. They may be read from files each time that they are asked for."""

    @property
    def wanted(self) -> list[str]:
        """The names of the outputs."""
