"""How far a long step is and how long it will go on, as log lines."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from hart_edge.training.journal import duration

log = logging.getLogger(__name__)

FIRST, EVERY = 2.0, 15.0  # seconds until the first line, and between lines

T = TypeVar("T")


def told(what: str, items: Iterable[T], count: int) -> Iterator[T]:
    """The items; a line says how many of `count` there are and how long the rest will take at that speed."""
    began, due = time.monotonic(), time.monotonic() + FIRST
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now >= due and done < count:
            due = now + EVERY
            log.info("%s: %d of %d, %s left", what, done, count, duration((now - began) / done * (count - done)))
