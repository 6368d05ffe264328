"""How far a long step is and how long it will go on, and how many prompts were cut: log lines, a few of each."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from hart_edge.runtime.prompt_tokenizer import PromptTruncatedWarning
from hart_edge.units import duration

log = logging.getLogger(__name__)

FIRST, EVERY = 2.0, 15.0  # seconds until the first line, and between lines

T = TypeVar("T")
Clock = Callable[[], float]  # seconds


class Progress:
    """Says how many of `count` there are and how long the rest will take at that speed."""

    def __init__(self, what: str, count: int, clock: Clock = time.monotonic) -> None:
        self.what, self.count, self.clock = what, count, clock
        self.began = clock()
        self.due = self.began + FIRST

    def at(self, done: int) -> None:
        now = self.clock()
        if now >= self.due and done < self.count:
            self.due = now + EVERY
            left = duration((now - self.began) / done * (self.count - done))
            log.info("%s: %d of %d, %s left", self.what, done, self.count, left)


def with_progress(what: str, items: Iterable[T], count: int, clock: Clock = time.monotonic) -> Iterator[T]:
    """The items, with a line on their progress now and then."""
    progress = Progress(what, count, clock)
    for done, item in enumerate(items, start=1):
        yield item
        progress.at(done)


@contextmanager
def log_truncated_prompts(what: str) -> Iterator[None]:
    """One line with how many prompts were longer than `what` reads, in place of a warning each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PromptTruncatedWarning)
        yield
    cut = sum(issubclass(warning.category, PromptTruncatedWarning) for warning in caught)
    for warning in caught:
        if not issubclass(warning.category, PromptTruncatedWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if cut:
        log.info("%s: %d prompts are read by their first tokens alone, being longer than it reads", what, cut)
