"""What an engine library holds does not survive a fork: its threads and its GPU stay with the process that made them.

In the child whoever runs or frees it waits forever or crashes. So what was made in another process is abandoned there:
neither run nor freed, the end of the interpreter included. Its memory is the parent's, and costs the child nothing.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

NO_GPU = (
    "expected the process that opened this bundle, found a fork of it, where CUDA cannot be used; start processes with "
    "multiprocessing's 'spawn', or load the bundle after the fork in a process that has not used the GPU before"
)


class HomeProcess:
    """The process in which something was made."""

    def __init__(self, this_process: Callable[[], int] = os.getpid) -> None:
        self._this_process, self._process = this_process, this_process()

    def is_this(self) -> bool:
        """Not so in a child that was forked since."""
        return self._this_process() == self._process


def keep_forever(thing: object) -> None:
    """Let nothing free an object any more."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
