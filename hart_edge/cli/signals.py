"""SIGTERM and SIGHUP end a command as Ctrl-C does: by an exception that lets everything put away what is half done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Ended(KeyboardInterrupt):
    """A signal asked the program to end. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextmanager
def ending_signals() -> Iterator[None]:
    """Raise Ended in the block at the first of the signals; the next ones are ignored, since the end has begun.

    A signal that is ignored from the start stays so (nohup), and so does a handler of whoever calls main().
    """
    if threading.current_thread() is not threading.main_thread():  # Python has handlers in the main thread alone
        yield
        return
    mine = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, _: FrameType | None) -> None:
        for each in mine:
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    for number in mine:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, signal.SIG_DFL)


def signal_behind(interrupt: BaseException | None) -> int:
    """The signal that ended a command, though the exception may have been raised anew with more to say."""
    while interrupt is not None:
        if isinstance(interrupt, Ended):
            return interrupt.number
        interrupt = interrupt.__context__
    return signal.SIGINT
