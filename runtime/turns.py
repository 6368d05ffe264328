"""One picture at a time, for a pipeline whose graphs come and go or whose buffers lie on a device.

In: the pipeline's drawings and previews. Out: a BusyError for a second drawing, whichever thread asks for it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hart_edge.errors import BusyError


class Turns:
    """Who is drawing. A child that was forked begins with nobody: threads of its parent are not in it."""

    def __init__(self) -> None:
        self._locks = _Locks()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Around a picture. Raises BusyError while another is drawn; it waits for none, so nothing can be locked up."""
        locks = self._own()
        if not locks.picture.acquire(blocking=False):
            raise BusyError(
                "expected a pipeline that is free, found it drawing a picture, and with low_memory or on a GPU it "
                "draws one at a time; wait for it or close its stream, or load another pipeline for this thread"
            )
        try:
            yield
        finally:
            locks.picture.release()

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around one use of the runner, a scale or a preview: others wait for it."""
        with self._own().runner:
            yield

    def _own(self) -> _Locks:
        if self._locks.process != os.getpid():
            self._locks = _Locks()
        return self._locks


class _Locks:
    """Those of one process."""

    def __init__(self) -> None:
        self.process, self.picture, self.runner = os.getpid(), threading.Lock(), threading.Lock()
