"""The workers and the queue in front of them: a job goes to the next worker that is free, in the order that jobs came.

In: jobs. Out: their events. A worker that dies, or shows no sign of life while it draws, is replaced; its job fails
with a reason. Everything here runs on one event loop; a thread for each worker does nothing but wait for what it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import multiprocessing
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from hart_edge.errors import EngineError
from hart_edge.server.jobs import Cancelled, Done, Failed, Job, JobState, Position, Scale, Shelf
from hart_edge.server.worker import Broken, Draw, End, Ready, Report, Stop, WorkerPlan, work

log = logging.getLogger(__name__)

LONGEST_PAUSE = 30.0  # seconds before a worker that never got ready is started again
CLOSING = 2.0  # seconds for a worker to end by itself
FIRST_GUESS = 1.0  # seconds of a picture, before one was drawn


@dataclass(frozen=True)
class PoolOptions:
    """workers: processes; queue: pictures that may wait; client_queue: of one client; stall: seconds without a sign of
    a worker that draws.
    """

    workers: int = 1
    queue: int = 32
    client_queue: int | None = None
    stall: float = 300.0


class QueueFullError(Exception):
    """No place for a job. retry_after: seconds, of all places or of the client's own."""

    def __init__(self, retry_after: int, *, own: bool) -> None:
        super().__init__("the queue is full")
        self.retry_after, self.own = retry_after, own


@dataclass(eq=False)
class _Worker:
    process: SpawnProcess
    connection: Connection
    ready: bool = False
    job: Job | None = None
    begun: float = 0.0
    watch: asyncio.TimerHandle | None = None
    hung: bool = False


class Pool:
    """ended: called with every job that has ended, and with the seconds of its drawing."""

    def __init__(
        self,
        plan: WorkerPlan,
        options: PoolOptions,
        shelf: Shelf,
        ended: Callable[[Job, float], None] = lambda job, seconds: None,
    ) -> None:
        self._plan, self._options, self._shelf, self._ended = plan, options, shelf, ended
        self._queue: deque[Job] = deque()
        self._workers: list[_Worker] = []
        self._closing, self._pause = False, 0.0
        self._seconds = FIRST_GUESS  # of a picture, a moving mean
        self._opened: asyncio.Future[None] | None = None
        self.restarts = 0

    # For whoever asks.

    @property
    def waiting(self) -> int:
        return len(self._queue)

    @property
    def drawing(self) -> list[Job]:
        return [worker.job for worker in self._workers if worker.job is not None]

    @property
    def ready(self) -> int:
        """Workers that can draw."""
        return sum(worker.ready for worker in self._workers)

    @property
    def processes(self) -> list[int]:
        return [worker.process.pid for worker in self._workers if worker.process.pid is not None]

    def position(self, job: Job) -> int | None:
        """How many are drawn before it; None when it is not waiting."""
        return self._queue.index(job) if job in self._queue else None

    def seconds_to_wait(self) -> int:
        """When a place in the queue may be free: whole seconds, for Retry-After."""
        return max(1, math.ceil(self._seconds * (len(self._queue) + 1) / max(1, self.ready) / 2))

    # For the routes.

    def submit(self, jobs: Sequence[Job]) -> None:
        """Put the jobs of one request into the queue, all or none. Raises QueueFullError.

        A request of more pictures than there are places waits for an empty queue rather than for ever.
        """
        if self._closing:
            raise QueueFullError(1, own=False)
        options, client = self._options, jobs[0].client
        if options.client_queue is not None:
            own = sum(job.client == client for job in (*self._queue, *self.drawing))
            if own and own + len(jobs) > options.client_queue:
                raise QueueFullError(self.seconds_to_wait(), own=True)
        idle = sum(worker.ready and worker.job is None for worker in self._workers)
        if self._queue and len(self._queue) + len(jobs) - idle > options.queue:
            raise QueueFullError(self.seconds_to_wait(), own=False)
        for job in jobs:
            self._shelf.add(job)
            self._queue.append(job)
        self._dispatch()
        for position, job in enumerate(self._queue):
            if job in jobs:
                job.tell(Position(position))

    def cancel(self, job: Job) -> None:
        """A job that waits is forgotten; one that is being drawn ends with its present scale."""
        if job.state.ended:
            return
        if job in self._queue:
            self._queue.remove(job)
            self._tell_positions()
        for worker in self._workers:
            if worker.job is job:
                self._send(worker, Stop(job.id))
        self._end(job, Cancelled())

    # Workers come and go.

    async def start(self) -> None:
        """Start the workers; returns when one can draw. Raises EngineError where the bundles cannot be opened."""
        self._opened = asyncio.get_running_loop().create_future()
        for _ in range(self._options.workers):
            self._spawn()
        await self._opened

    async def drain(self, seconds: float) -> bool:
        """Let what was asked for be drawn, for so long. True when nothing is left."""
        end = time.monotonic() + seconds
        while (self._queue or self.drawing) and time.monotonic() < end:
            await asyncio.sleep(0.02)
        return not (self._queue or self.drawing)

    def give_up(self) -> None:
        """Draw nothing more: drain() returns at once."""
        for job in (*self._queue, *self.drawing):
            self._end(job, Failed(503, "the server is ending"))
        self._queue.clear()
        for worker in self._workers:
            worker.job = None

    async def close(self) -> None:
        """End the workers; whatever is still to be drawn fails."""
        self._closing = True
        self.give_up()
        for worker in self._workers:
            self._unwatch(worker)
            self._send(worker, End())
        await asyncio.to_thread(self._join, [worker.process for worker in self._workers])
        for worker in self._workers:
            worker.connection.close()
        self._workers.clear()

    @staticmethod
    def _join(processes: Sequence[SpawnProcess]) -> None:
        end = time.monotonic() + CLOSING
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share the server's sockets and locks
        ours, theirs = context.Pipe()
        process = context.Process(target=work, args=(theirs, self._plan), name="hart-edge-worker", daemon=True)
        process.start()
        theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._listen, args=(worker, loop), name=f"worker-{process.pid}", daemon=True).start()

    def _listen(self, worker: _Worker, loop: asyncio.AbstractEventLoop) -> None:
        """In a thread: hand over what a worker says, and at last that it has gone."""
        with contextlib.suppress(RuntimeError):  # the loop has ended
            while True:
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError, TypeError):  # TypeError: the connection was closed in the middle of it
                    break
                loop.call_soon_threadsafe(self._heard, worker, message)
            loop.call_soon_threadsafe(self._gone, worker)

    def _heard(self, worker: _Worker, message: Any) -> None:
        if self._closing:
            return
        if isinstance(message, Broken):
            log.error("a worker cannot open the bundles: %s", message.message)
            if self._opened is not None and not self._opened.done():
                self._opened.set_exception(EngineError(message.message))
        elif isinstance(message, Ready):
            worker.ready, self._pause = True, 0.0
            if self._opened is not None and not self._opened.done():
                self._opened.set_result(None)
            self._dispatch()
        elif isinstance(message, Report):
            self._reported(worker, message)

    def _reported(self, worker: _Worker, report: Report) -> None:
        job = worker.job
        if job is None or job.id != report.job:
            return
        if isinstance(report.event, Scale):
            job.tell(report.event)
            self._watch(worker)
            return
        if report.detail:
            log.error("picture %s: %s", job.id, report.detail)
        self._unwatch(worker)
        worker.job = None
        if isinstance(report.event, Done):
            self._seconds += (report.event.seconds - self._seconds) / 8
        self._end(job, report.event)
        self._dispatch()

    def _gone(self, worker: _Worker) -> None:
        """A worker has ended, whatever the reason: the others go on, and another takes its place."""
        if self._closing or worker not in self._workers:
            return
        self._workers.remove(worker)
        self._unwatch(worker)
        worker.connection.close()
        worker.process.join(CLOSING)
        reason = "hung and was ended" if worker.hung else f"ended ({ending(worker.process.exitcode)})"
        log.error("worker %s %s; starting another", worker.process.pid, reason)
        if worker.job is not None:
            message = f"the process that drew this picture {reason}; another takes its place, so try again"
            self._end(worker.job, Failed(500, message))
        if self._opened is not None and not self._opened.done() and not self._workers:
            self._opened.set_exception(EngineError(f"the process that opens the bundles {reason}"))
            return
        self.restarts += 1
        if not worker.ready:
            self._pause = min(LONGEST_PAUSE, 2 * self._pause or 1.0)
        asyncio.get_running_loop().call_later(0.0 if worker.ready else self._pause, self._replace)

    def _replace(self) -> None:
        if not self._closing:
            self._spawn()

    # Jobs go to workers.

    def _dispatch(self) -> None:
        moved = False
        for worker in self._workers:
            if not self._queue:
                break
            if worker.ready and worker.job is None:
                job = self._queue.popleft()
                worker.job, worker.begun, moved = job, time.monotonic(), True
                job.state = JobState.DRAWING
                self._watch(worker)
                self._send(worker, Draw(job.id, job.order))
        if moved:
            self._tell_positions()

    def _tell_positions(self) -> None:
        for position, job in enumerate(self._queue):
            if job.events:  # one that was told its place, which has changed
                job.tell(Position(position))

    def _send(self, worker: _Worker, message: Draw | Stop | End) -> None:
        with contextlib.suppress(OSError):  # it has gone, which _gone() is about to hear
            worker.connection.send(message)

    def _end(self, job: Job, event: Done | Failed | Cancelled | Any) -> None:
        if job.state.ended:
            return
        job.tell(event)
        self._ended(job, event.seconds if isinstance(event, Done) else 0.0)
        self._shelf.tidy()

    def _watch(self, worker: _Worker) -> None:
        """Give a worker that draws some time until its next sign of life."""
        self._unwatch(worker)
        worker.watch = asyncio.get_running_loop().call_later(self._options.stall, self._kill, worker)

    @staticmethod
    def _unwatch(worker: _Worker) -> None:
        if worker.watch is not None:
            worker.watch.cancel()
            worker.watch = None

    @staticmethod
    def _kill(worker: _Worker) -> None:
        worker.hung = True
        worker.process.kill()


def ending(code: int | None) -> str:
    """An exit code in words."""
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"by {signal.Signals(-code).name}"
    return f"exit status {code}"
