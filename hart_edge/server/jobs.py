"""A picture that was asked for: what is to be drawn, what has come of it so far, and who wants to hear of it.

In: orders of the HTTP routes, and what workers report. Out: events in their order, the same for whoever follows a job,
from its first one on, whenever they come.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum

from hart_edge.bundle.settings import Settings
from hart_edge.runtime.picture_metadata import PictureMetadata
from hart_edge.server.encoding import Encoding


class JobState(StrEnum):
    QUEUED = "queued"
    DRAWING = "drawing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (JobState.QUEUED, JobState.DRAWING)


@dataclass(frozen=True)
class Order:
    """What is to be drawn. settings: as asked, for the pipeline; metadata: with the settings that this comes to;
    previews: scales to decode; warnings: what the client is told of its prompt."""

    metadata: PictureMetadata
    settings: Settings
    encoding: Encoding = field(default_factory=Encoding)
    previews: frozenset[int] = frozenset()
    warnings: tuple[str, ...] = ()

    @property
    def bundle(self) -> str:
        return self.metadata.bundle


@dataclass(frozen=True)
class Position:
    """A place in the queue: 0 is the next to be drawn."""

    position: int


@dataclass(frozen=True)
class Scale:
    """A finished scale. seconds: since the drawing began; preview: a file in the order's encoding, or None."""

    scale: int
    seconds: float
    preview: bytes | None


@dataclass(frozen=True)
class Done:
    """The picture: a file in the order's encoding."""

    picture: bytes
    seconds: float


@dataclass(frozen=True)
class Failed:
    """Words for the client: no path, no trace. status: of HTTP."""

    status: int
    message: str


@dataclass(frozen=True)
class Cancelled:
    pass


JobEvent = Position | Scale | Done | Failed | Cancelled
ENDS = {Done: JobState.DONE, Failed: JobState.FAILED, Cancelled: JobState.CANCELLED}


@dataclass(eq=False)
class Job:
    """client: the address that asked, for its share of the queue."""

    order: Order
    client: str = ""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    created: float = field(default_factory=time.time)
    state: JobState = JobState.QUEUED
    events: list[JobEvent] = field(default_factory=list)
    _news: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def tell(self, event: JobEvent) -> None:
        """Add an event; nothing follows one that ends the job."""
        if self.state.ended:
            return
        if isinstance(event, Scale):
            self.state = JobState.DRAWING
        self.state = ENDS.get(type(event), self.state)
        self.events.append(event)
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def follow(self) -> AsyncIterator[JobEvent]:
        """Every event from the first to the one that ends the job."""
        told = 0
        while True:
            while told < len(self.events):
                yield self.events[told]
                told += 1
            if self.state.ended:
                return
            await self._news.wait()

    async def result(self) -> Done | Failed | Cancelled:
        """What the job ends with."""
        async for event in self.follow():
            if isinstance(event, Done | Failed | Cancelled):
                return event
        raise AssertionError("the last event of a job ends it")

    @property
    def scales(self) -> list[Scale]:
        return [event for event in self.events if isinstance(event, Scale)]

    @property
    def latest_preview(self) -> bytes | None:
        return next((scale.preview for scale in reversed(self.scales) if scale.preview is not None), None)

    @property
    def size(self) -> int:
        """Bytes of its pictures."""
        previews = sum(len(scale.preview or b"") for scale in self.scales)
        return previews + sum(len(event.picture) for event in self.events if isinstance(event, Done))


class Shelf:
    """Jobs by their ids: those under way, and the last that have ended, as many as fit."""

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def add(self, job: Job) -> None:
        self._jobs[job.id] = job

    def get(self, id: str) -> Job | None:
        return self._jobs.get(id)

    def tidy(self) -> None:
        """Drop the oldest that have ended, until the rest is within the limits. Called whenever one ends."""
        ended = [job for job in self._jobs.values() if job.state.ended]
        total = sum(job.size for job in ended)
        for number, job in enumerate(ended):
            if len(ended) - number <= self._most and total <= self._most_bytes:
                break
            total -= job.size
            del self._jobs[job.id]

    def __len__(self) -> int:
        return len(self._jobs)
