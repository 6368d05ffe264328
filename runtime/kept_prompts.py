"""What depends on a prompt alone, of the last prompts: another seed or setting need not compute it again.

In: the inputs of a prompt, and what the steps that read nothing else have left. Out: those arrays again, for a pass
that then begins behind these steps. The same bytes go the same way, so no picture can change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from hart_edge.bundle.kept import MOST_CONTEXTS, kept_names, most_first_scales, steps_of_prompt, steps_of_text
from hart_edge.bundle.plan import Plan
from hart_edge.runtime.loop import Array, Known


class KeptPrompts:
    """Contexts of the last prompts, and first scales of the last few of them (bundle/kept.py), for every speed.

    A prompt is told by its prompt_key(). Threads may share it: every access of a dictionary is one operation.
    """

    def __init__(self, plans: Sequence[Plan], *, first_scales: bool = True) -> None:
        """plans: of a bundle's speeds; first_scales: whether those are kept; they take more memory than contexts."""
        self._contexts = _Level(steps_of_text(plans[0]), plans, MOST_CONTEXTS)
        self._levels = [self._contexts] if self._contexts.names else []
        if first_scales:
            self._levels.append(_Level(steps_of_prompt(plans[0]), plans, most_first_scales(plans)))

    def forget(self) -> None:
        for level in self._levels:
            level.kept.clear()

    def find(self, key: bytes) -> Known | None:
        """The most that is known of a prompt, None where that is nothing."""
        found = None
        for level in self._levels:
            values = level.find(key)
            found = found if values is None else Known(values, level.steps)
        return found

    def context(self, key: bytes) -> Mapping[str, Array] | None:
        """What the text model made of a prompt, None where that is not known."""
        return self._contexts.find(key)

    def keep_context(self, key: bytes, made: Mapping[str, Array]) -> None:
        """Remember what the text model made of a prompt that was not drawn."""
        self._contexts.keep(key, made.__getitem__)

    def wanted(self, known: Known | None) -> frozenset[str]:
        """The buffers that keep() will read after a pass that began with what was known."""
        return frozenset(name for level in self._beyond(known) for name in level.names)

    def keep(self, key: bytes, known: Known | None, read: Callable[[str], Array]) -> None:
        """Remember what a pass has computed beyond what was known, and forget the prompt that was used longest ago."""
        for level in self._beyond(known):
            level.keep(key, read)

    def _beyond(self, known: Known | None) -> list[_Level]:
        return [level for level in self._levels if known is None or level.steps > known.steps]


class _Level:
    """steps: how many of a plan's first steps it stands for; names: of the buffers that they leave; most: prompts."""

    def __init__(self, steps: int, plans: Sequence[Plan], most: int) -> None:
        self.steps, self.names, self.most = steps, kept_names(plans, steps), most
        self.kept: dict[bytes, Mapping[str, Array]] = {}  # the latest last

    def find(self, key: bytes) -> Mapping[str, Array] | None:
        found = self.kept.pop(key, None)
        if found is not None:
            self.kept[key] = found
        return found

    def keep(self, key: bytes, read: Callable[[str], Array]) -> None:
        self.kept[key] = {name: read(name).copy() for name in self.names}
        for oldest in list(self.kept)[: -self.most]:
            self.kept.pop(oldest, None)


def prompt_key(inputs: Mapping[str, Array]) -> bytes:
    """Of a prompt: the SHA-256 of its ids, or of its context."""
    digest = hashlib.sha256()
    for name, array in sorted(inputs.items()):
        digest.update(name.encode() + b"\0" + array.tobytes())
    return digest.digest()
