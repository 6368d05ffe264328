"""The errors of hart-edge, and the guard that stands where other libraries and the machine may fail.

Every error says what was expected, what was found, and what to do. hart_edge re-exports them, so that `except
hart_edge.HartEdgeError` catches all of them.
"""

from __future__ import annotations

import errno
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast


class HartEdgeError(Exception):
    """Base of every error that hart-edge raises on purpose."""


class InputError(HartEdgeError, ValueError):
    """A prompt, seed or sampling setting that cannot be used."""


class CheckpointError(HartEdgeError):
    """A checkpoint folder that is incomplete, misshapen or unsafe to read."""


class BundleError(HartEdgeError):
    """A bundle that is missing, altered, of an unknown format, or not to be trusted."""


class BuildError(HartEdgeError):
    """A build that cannot be finished; nothing was written under the final name."""


class ParityError(BuildError):
    """An exported graph that does not compute what the reference computes."""


class EngineError(HartEdgeError):
    """An engine library that is missing, refuses a graph, or fails while running."""


class OutOfMemoryError(EngineError, MemoryError):
    """Memory that a graph or a picture needs and this process cannot have.

    reason: what the library that was refused said of it.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class BusyError(HartEdgeError):
    """A pipeline that draws one picture at a time, and is drawing one."""


class GenerationError(HartEdgeError):
    """A generation that produced something no picture may be made of."""


DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What the machine lacks, in words, and what to do about it: true wherever it happens.
LACKING = {
    **dict.fromkeys(DISK_FULL, ("the disk is full", "make room")),
    errno.ENOMEM: ("not enough memory", "close other programs, or use a machine with more"),
    errno.EMFILE: ("too many open files", "raise the limit (ulimit -n)"),
    errno.ENFILE: ("too many open files", "close other programs"),
    errno.EIO: ("the disk fails", "check it and its cable or network"),
}
# What only a fault of this program raises: no border hides it. Warnings are errors where a caller asked for that.
# Where a user's file is read, what AttributeError and ArithmeticError tell of is in the file.
READING_FAULTS: tuple[type[Exception], ...] = (AssertionError, NameError, ImportError, Warning)
FAULTS = (*READING_FAULTS, AttributeError, ArithmeticError)
SHOWN = 300  # characters of a foreign message


@contextmanager
def border(
    kind: type[HartEdgeError],
    subject: object,
    problem: str,
    remedy: str,
    *,
    room: str | None = None,
    programming: tuple[type[Exception], ...] = FAULTS,
) -> Iterator[None]:
    """Turn what a library or the machine raises in the block into `kind`, with its cause and a remedy, on one line.

    subject: what was being worked on, a file or a folder; problem: what then cannot be done; room: the remedy where the
    disk is full; programming: errors that pass unchanged, as our own do. The cause stays as __cause__.
    """
    try:
        yield
    except HartEdgeError:
        raise
    except programming:
        raise
    except Exception as error:  # libraries share no base of their exceptions
        raise kind(told(error, subject, problem, remedy, room)) from error


F = TypeVar("F", bound=Callable[..., Any])


def bordered(
    kind: type[HartEdgeError],
    problem: str,
    remedy: str,
    *,
    subject: str | None = None,
    programming: tuple[type[Exception], ...] = FAULTS,
) -> Callable[[F], F]:
    """border() around a function, or around a generator as long as it runs. subject: by default its first argument."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def call(*arguments: Any, **more: Any) -> Any:
            about = arguments[0] if subject is None else subject
            with border(kind, about, problem, remedy, programming=programming):
                return function(*arguments, **more)

        @functools.wraps(function)
        def run(*arguments: Any, **more: Any) -> Iterator[Any]:
            about = arguments[0] if subject is None else subject
            with border(kind, about, problem, remedy, programming=programming):
                yield from function(*arguments, **more)

        return cast(F, run if inspect.isgeneratorfunction(function) else call)

    return decorate


def told(error: Exception, subject: object, problem: str, remedy: str, room: str | None = None) -> str:
    """The message of an error of ours that another one caused."""
    number = errno.ENOMEM if isinstance(error, MemoryError) else error.errno if isinstance(error, OSError) else None
    if number in LACKING:
        problem, remedy = LACKING[number]
        remedy = room if room is not None and number in DISK_FULL else remedy
    return f"{subject}: {problem} ({cause(error)}); {remedy}"


def cause(error: Exception) -> str:
    """A foreign error as one line: its first words, and its class unless the system's words are enough."""
    name, text = type(error).__name__, " ".join(str(error).split())
    shown = text if len(text) <= SHOWN else text[:SHOWN] + "..."
    if isinstance(error, OSError) and shown:
        return shown
    return f"{name}: {shown}" if shown else name
