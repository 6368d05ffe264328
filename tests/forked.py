"""Run work in a forked child, so that it can neither hang nor end the test process."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

SECONDS = 60


def forked(work: Callable[[], object]) -> int:
    """Exit status of a forked child that does the work; negative: the signal that ended it, SIGALRM after a hang."""
    child = os.fork()
    if child == 0:
        signal.alarm(SECONDS)
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
