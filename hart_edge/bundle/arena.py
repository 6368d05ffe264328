"""Places in one block of memory for buffers that are not all alive at once.

In: sizes and lifetimes in steps. Out: an offset for each, and the size of the block. The runners on a GPU allocate the
block once; the memory planner needs only its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ARENA_ALIGNMENT = 256  # bytes; what TensorRT asks of addresses


@dataclass(frozen=True)
class Span:
    """size in bytes, alive from step `first` to step `last`, both included."""

    name: str
    size: int
    first: int
    last: int


def place(spans: Sequence[Span]) -> tuple[dict[str, int], int]:
    """Offset of every span, multiples of ARENA_ALIGNMENT, and the size of the block that holds them all.

    Spans that are alive in the same step do not overlap. Largest first, each at the lowest offset that is free: not
    always the smallest block, but no larger than `peak` by more than gaps. An empty span has an address of its own too.
    """
    offsets: dict[str, int] = {}
    placed: list[tuple[int, int, Span]] = []  # (offset, end, span), by offset
    for span in sorted(spans, key=lambda each: (-each.size, each.first, each.name)):
        size = aligned(span.size)
        offset = 0
        for begin, end, other in placed:
            if other.last < span.first or span.last < other.first:
                continue
            if begin - offset >= size:
                break
            offset = max(offset, end)
        offsets[span.name] = offset
        placed.append((offset, offset + size, span))
        placed.sort(key=lambda each: each[0])
    return offsets, max((end for _, end, _ in placed), default=0)


def peak(spans: Sequence[Span]) -> int:
    """The most bytes that are alive in any step: what no placement can be smaller than."""
    changes: dict[int, int] = {}
    for span in spans:
        changes[span.first] = changes.get(span.first, 0) + aligned(span.size)
        changes[span.last + 1] = changes.get(span.last + 1, 0) - aligned(span.size)
    most = now = 0
    for step in sorted(changes):
        now += changes[step]
        most = max(most, now)
    return most


def aligned(size: int) -> int:
    """The size rounded up to ARENA_ALIGNMENT; at least one unit."""
    return max(-(-size // ARENA_ALIGNMENT), 1) * ARENA_ALIGNMENT
