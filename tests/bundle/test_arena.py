"""Offsets for buffers that are not all alive at the same time."""

import random

import pytest

from hart_edge.bundle.arena import ARENA_ALIGNMENT, Span, peak, place


def test_buffers_that_are_never_alive_together_share_memory() -> None:
    offsets, size = place([Span("a", 1000, 0, 1), Span("b", 1000, 2, 3), Span("c", 10, 1, 2)])
    assert offsets == {"a": 0, "b": 0, "c": 1024} and size == 1280


def test_an_empty_buffer_has_an_address_of_its_own() -> None:
    offsets, size = place([Span("a", 0, 0, 0), Span("b", 0, 0, 0)])
    assert sorted(offsets.values()) == [0, 256] and size == 512
    assert place([]) == ({}, 0) and peak([]) == 0


def test_a_buffer_is_alive_to_its_last_step_and_not_after_it() -> None:
    assert peak([Span("a", 256, 0, 1), Span("b", 256, 1, 2)]) == 512
    assert peak([Span("a", 256, 0, 1), Span("b", 256, 2, 2)]) == 256


@pytest.mark.parametrize("seed", range(5))
def test_buffers_that_are_alive_together_never_overlap(seed: int) -> None:
    draw = random.Random(seed)
    spans = []
    for number in range(120):
        first = draw.randrange(40)
        spans.append(Span(str(number), draw.randrange(5000), first, min(first + draw.randrange(6), 39)))
    offsets, size = place(spans)
    for span in spans:
        assert offsets[span.name] % ARENA_ALIGNMENT == 0 and offsets[span.name] + span.size <= size
        for other in spans:
            if other is span or other.last < span.first or span.last < other.first:
                continue
            apart = offsets[other.name] >= offsets[span.name] + span.size
            assert apart or offsets[span.name] >= offsets[other.name] + other.size, (span, other)
    assert peak(spans) <= size <= 1.25 * peak(spans)
