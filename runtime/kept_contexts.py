"""The contexts of the last prompts: the same prompt with another seed needs no text model.

In: the ids of a prompt, and what the text model's steps left. Out: those arrays again, for a pass that then skips the
steps. The same bytes go the same way, so no picture can change.
"""

from __future__ import annotations

from collections.abc import Mapping

from hart_edge.bundle.plan import ComponentName, Plan
from hart_edge.runtime.loop import Array

MOST = 16  # prompts; each has T * D numbers, 1.8 MB at the published size

Known = Mapping[str, Array]  # buffers that need not be computed


class KeptContexts:
    """Threads may share it: every access of the dictionary is one operation of Python's own."""

    def __init__(self, plan: Plan, most: int = MOST) -> None:
        steps = [step for step in plan.steps if step.graph is ComponentName.TEXT_MODEL]
        self.names = frozenset(name for step in steps for name in step.outputs.values())  # of the buffers they leave
        self._most = most
        self._kept: dict[bytes, Known] = {}  # the latest last

    def forget(self) -> None:
        self._kept.clear()

    def find(self, inputs: Mapping[str, Array]) -> Known | None:
        """What the text model made of these ids, None where that is not known."""
        key = _key(inputs)
        found = None if key is None else self._kept.pop(key, None)
        if key is not None and found is not None:
            self._kept[key] = found
        return found

    def keep(self, inputs: Mapping[str, Array], made: Known) -> None:
        """Remember it, and forget the prompt that was used longest ago where there are too many."""
        key = _key(inputs)
        if key is None or not self.names:
            return
        self._kept[key] = {name: made[name].copy() for name in self.names}
        for oldest in list(self._kept)[: -self._most]:
            self._kept.pop(oldest, None)


def _key(inputs: Mapping[str, Array]) -> bytes | None:
    ids = inputs.get("input_ids")
    return None if ids is None else ids.tobytes()
