"""A process that draws: it opens the bundles itself, takes one order at a time, and reports every scale.

In: messages of pool.py on a pipe. Out: messages on the same pipe. It looks for a word to stop between any two scales,
and ends when the pipe does, so that none is left behind by a server that was killed.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hart_edge.engines.loading import load
from hart_edge.errors import BusyError, GenerationError, HartEdgeError, InputError, OutOfMemoryError
from hart_edge.runtime.pipeline import Pipeline
from hart_edge.server.jobs import Cancelled, Done, Failed, JobEvent, Order, Scale

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Draw:
    job: str
    order: Order


@dataclass(frozen=True)
class Stop:
    job: str


@dataclass(frozen=True)
class End:
    """Nothing more comes."""


@dataclass(frozen=True)
class Ready:
    """The bundles are open."""


@dataclass(frozen=True)
class Broken:
    """The bundles cannot be opened."""

    message: str


@dataclass(frozen=True)
class Report:
    job: str
    event: JobEvent
    detail: str = ""  # for the log alone


@dataclass(frozen=True)
class WorkerPlan:
    """What a worker opens. folders: of bundles by name; prepared: per bundle a folder for its graphs, which workers
    share, where it has one; load: opens a bundle."""

    folders: Mapping[str, Path]
    threads: int
    low_memory: bool = False
    load: Callable[..., Pipeline] = load
    prepared: Mapping[str, Path] = field(default_factory=dict)

    def open(self, name: str) -> Pipeline:
        further = {"prepared": self.prepared[name]} if name in self.prepared else {}
        return self.load(self.folders[name], threads=self.threads, low_memory=self.low_memory, **further)


def work(connection: Connection, plan: WorkerPlan) -> None:
    """What the process does from its beginning to its end."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # the server says when; a terminal tells all its group
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the server has gone
        try:
            pipelines = {name: plan.open(name) for name in plan.folders}
        except HartEdgeError as error:
            connection.send(Broken(str(error)))
            return
        connection.send(Ready())
        while True:
            message = connection.recv()
            if isinstance(message, End):
                return
            if isinstance(message, Draw):  # a word to stop may come after the end of its picture
                draw(connection, pipelines[message.order.bundle], message)


def draw(connection: Connection, pipeline: Pipeline, message: Draw) -> None:
    """One picture, or why there is none."""
    report = partial(Report, message.job)
    try:
        event = _drawn(connection, pipeline, message)
    except InputError as error:
        connection.send(report(Failed(400, str(error))))
    except GenerationError as error:
        connection.send(report(Failed(500, str(error))))
    except (HartEdgeError, OSError, MemoryError) as error:
        connection.send(report(_failure(error), str(error)))
    else:
        connection.send(report(event))


def _drawn(connection: Connection, pipeline: Pipeline, message: Draw) -> Done | Cancelled:
    order, start = message.order, time.perf_counter()
    prompt = order.metadata.prompt
    assert prompt is not None  # a server has bundles with a text model alone
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the client was told before
        events = pipeline.stream(prompt, seed=order.metadata.seed, **order.settings)
    picture = b""
    for event in events:
        preview = None
        if event.scale in order.previews:
            preview = order.encoding.file_of(event.preview())
        if event.image is not None:
            picture = order.encoding.file_of(event.image, order.metadata)
        connection.send(Report(message.job, Scale(event.scale, time.perf_counter() - start, preview)))
        while connection.poll():
            word: Any = connection.recv()
            if isinstance(word, End):
                raise EOFError
            if isinstance(word, Stop) and word.job == message.job:
                events.close()  # type: ignore[attr-defined]  # a generator: closing it stops the work
                return Cancelled()
    return Done(picture, time.perf_counter() - start)


def _failure(error: Exception) -> Failed:
    """What a client may know of an error that names files and libraries of this machine."""
    if isinstance(error, OutOfMemoryError | MemoryError):
        return Failed(503, "the server has not enough memory for this picture now; try again later")
    if isinstance(error, BusyError):
        return Failed(503, "the server's worker is busy; try again")
    return Failed(500, "the picture could not be drawn; the server's log says why")
