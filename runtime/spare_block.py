"""A block of memory that stays between two pictures, so that the system need not make its pages again.

The keys and values of a picture are the largest of its arrays: at the published size the first touch of their pages
takes a tenth of the transformer's time. After a minute without a picture the block goes back.
"""

from __future__ import annotations

import threading
import time
import weakref

import numpy as np
from numpy.typing import NDArray

IDLE_SECONDS = 60.0

Block = NDArray[np.uint8]


class SpareBlock:
    """At most one block. Any thread may take and return: one that finds none makes its own.

    The timer does not hold it, so the memory of a pipeline that is no longer referred to goes at once.
    """

    def __init__(self, idle_seconds: float = IDLE_SECONDS) -> None:
        self._idle_seconds = idle_seconds
        self._spare: list[Block] = []
        self._returned = 0.0  # when, by time.monotonic()
        self._timer: threading.Timer | None = None

    def take(self, size: int) -> Block:
        """A block of so many bytes, whatever they hold."""
        try:
            found = self._spare.pop()
        except IndexError:
            return np.empty(size, np.uint8)
        return found if found.size == size else np.empty(size, np.uint8)

    def give_back(self, block: Block) -> None:
        """Leave a block for the next picture. Nobody may use it any more."""
        self._spare[:] = [block]
        self._returned = time.monotonic()
        if self._timer is None or not self._timer.is_alive():  # nor is it in a child that was forked
            self._wait(self._idle_seconds)

    def drop(self) -> None:
        """Give the memory back to the system."""
        self._spare.clear()

    def _wait(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, _look_at, [weakref.ref(self)])
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        """Drop the block if it has been here long enough, else look again when it will have been."""
        left = self._returned + self._idle_seconds - time.monotonic()
        if left <= 0:
            self.drop()
        elif self._spare:
            self._wait(left)


def _look_at(spare: weakref.ref[SpareBlock]) -> None:
    found = spare()
    if found is not None:
        found._look()
