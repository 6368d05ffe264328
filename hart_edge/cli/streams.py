"""Standard output and standard error of every command: no write to them ever fails in the middle of the work.

What a stream cannot take is dropped, and the reason is kept: the work is done, its files are there, and the exit status
says what became of the words. A stream that was closed before the start is opened on nothing, so that no file gets its
number.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

BROKEN_PIPE = 141  # 128 + the number of SIGPIPE, as shells have it


class Outlet(io.FileIO):
    """A file descriptor that takes every write. lost: why it could not be passed on, None while all of it was."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        while self.lost is None:
            try:
                written = super().write(data)
            except OSError as error:
                self.lost = error
            else:
                if written is not None:
                    return written
                select.select([], [self], [])  # it does not block, and is full for now
        return len(data)


class Streams:
    """The two streams of a command. An outlet is None where a caller of main() has put another stream in its place."""

    def __init__(self, out: Outlet | None, err: Outlet | None) -> None:
        self.out, self.err = out, err

    def status(self, status: int) -> int:
        """The exit status of a command that ended with `status`, once all that it said has been passed on or lost."""
        try:
            flush()
        except BrokenPipeError:  # of a stream that a caller put here
            return status or BROKEN_PIPE
        lost = self.out.lost if self.out else None
        if status == 0 and lost is not None:
            if lost.errno == errno.EPIPE:
                return BROKEN_PIPE
            reason = "it is closed" if lost.errno == errno.EBADF else str(lost)
            print(f"error: standard output cannot be written ({reason}); all else was done", file=sys.stderr)
            flush()
            return 1
        if status == 0 and self.err and self.err.lost is not None and self.err.lost.errno == errno.EPIPE:
            return BROKEN_PIPE
        return status


@contextmanager
def standard_streams() -> Iterator[Streams]:
    """Guard the process's own streams while the block runs. Others, such as a test's, are left as they are."""
    before = sys.stdout, sys.stderr
    fill_gaps()
    outlets: list[Outlet | None] = []
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            stream = getattr(sys, name)
            if stream is getattr(sys, f"__{name}__"):
                outlet = Outlet(number, "w", closefd=False)
                setattr(sys, name, text_over(outlet, stream))
                outlets.append(outlet)
            else:
                outlets.append(None)
        yield Streams(*outlets)
    finally:
        sys.stdout, sys.stderr = before


def fill_gaps() -> None:
    """Open descriptors 0, 1 and 2 where they are closed, the wrong way round: whoever uses one finds an error still."""
    for number, way in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, way)  # gets the lowest number that is free, which is this one


def text_over(outlet: Outlet, stream: TextIO | None) -> TextIO:
    """A text stream over an outlet, in the encoding of the one that it replaces.

    A prompt that the encoding lacks is no error: it is shown with escapes.
    """
    if isinstance(stream, io.TextIOWrapper):
        stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(outlet),
        encoding=getattr(stream, "encoding", "utf-8"),
        errors="backslashreplace",
        line_buffering=outlet.fileno() == 2 or outlet.isatty(),
        write_through=getattr(stream, "write_through", False),
    )


def flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
