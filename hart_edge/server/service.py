"""What the routes of all APIs share: the bundles, the queue, and how a request becomes jobs.

An Operation is a route with what the OpenAPI document says of it; the three APIs are lists of operations.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from hart_edge.bundle.settings import SETTINGS, Settings
from hart_edge.errors import InputError
from hart_edge.server.answers import RefusedError
from hart_edge.server.catalogue import Catalogue, Served
from hart_edge.server.jobs import Job, JobState, Order, Shelf
from hart_edge.server.metrics import Metrics
from hart_edge.server.options import ServerOptions
from hart_edge.server.pool import Pool, PoolOptions, QueueFullError
from hart_edge.server.schema import Schema, parse_object
from hart_edge.server.worker import WorkerPlan

log = logging.getLogger(__name__)

JSON, EVENTS = "application/json", "text/event-stream"
SEED_BOUND = 2**64 - 1


class Service:
    """The server behind its routes."""

    def __init__(self, catalogue: Catalogue, options: ServerOptions, plan: WorkerPlan) -> None:
        """plan: what workers open, the catalogue's bundles."""
        limits = options.limits
        self.catalogue, self.options = catalogue, options
        self.shelf = Shelf(limits.kept, limits.kept_bytes)
        self.pool = Pool(
            plan,
            PoolOptions(options.workers, options.queue, options.client_queue, limits.stall),
            self.shelf,
            self._ended,
        )
        self.metrics = Metrics(self.pool)
        self.preferences = Preferences(catalogue.first.name)
        self._end = math.inf  # the moment when what is still drawn is cut off

    def end_by(self, seconds: float) -> None:
        """From now on the server is ending; what was asked for has so long to be drawn."""
        self._end = min(self._end, time.monotonic() + seconds)

    async def close(self) -> None:
        """Draw what was asked for, as long as there is time, and end the workers."""
        self.end_by(self.options.limits.drain)
        await self.pool.drain(max(0.0, self._end - time.monotonic()))
        await self.pool.close()

    def _ended(self, job: Job, seconds: float) -> None:
        self.metrics.ended(job, seconds)
        said = f": {job.order.metadata.prompt!r}" if self.options.log_prompts else ""
        took = f" in {seconds:.2f} s" if job.state is JobState.DONE else ""
        log.info("picture %s of %s %s%s%s", job.id, job.order.bundle, job.state, took, said)

    async def body(self, request: Request, schema: Schema) -> dict[str, Any]:
        """The JSON object that a request holds. Raises RefusedError."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON:
            raise RefusedError(415, f"content-type: expected {JSON}, found {kind[:60] or 'none'}")
        return parse_object(await request.body(), schema)

    def submit(self, request: Request, orders: Sequence[Order]) -> list[Job]:
        """Jobs for the pictures of a request, in the queue or on their way. Raises RefusedError where there is no
        place.
        """
        client = request.client.host if request.client else ""
        jobs = [Job(order, client) for order in orders]
        try:
            self.pool.submit(jobs)
        except QueueFullError as full:
            status, whose = (429, "of this client ") if full.own else (503, "")
            words = f"all places {whose}in the queue are taken; try again in {full.retry_after} s"
            raise RefusedError(
                status, words, code="queue_full", headers={"retry-after": str(full.retry_after)}
            ) from full
        return jobs

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Cancel what is not done."""
        for job in jobs:
            self.pool.cancel(job)

    @asynccontextmanager
    async def held(self, jobs: Sequence[Job]) -> AsyncIterator[None]:
        """Around an answer that needs these jobs: whatever is not done when it ends is cancelled."""
        try:
            yield
        finally:
            self.cancel(jobs)


@dataclass
class Preferences:
    """What clients of the A1111 API set for all, and the jobs of their requests under way, the last one last."""

    bundle: str
    live_previews: bool = True
    jobs: list[list[Job]] = field(default_factory=list)


Handler = Callable[[Service, Request], Awaitable[Response]]


@dataclass(frozen=True)
class Operation:
    """A route. body: the schema of its request for a catalogue; answers: (media type, schema) by status;
    parameters: of path and query, as OpenAPI has them."""

    method: str
    path: str
    summary: str
    handler: Handler
    body: Callable[[Catalogue], Schema] | None = None
    answers: Mapping[int, tuple[str, Schema | None]] = field(default_factory=dict)
    parameters: tuple[Mapping[str, Any], ...] = ()


def order_of(served: Served, given: Mapping[str, Any], **more: Any) -> Order:
    """The order of a body's prompt, seed and settings. Raises RefusedError."""
    settings: Settings = {name: given[name] for name in SETTINGS if name in given}  # type: ignore[assignment]  # its keys
    seed = given.get("seed")
    try:
        return served.order(given["prompt"], int(seed) if isinstance(seed, str) else seed, settings, **more)
    except InputError as error:
        name = str(error).partition(":")[0]
        raise RefusedError(400, str(error), param=name if name in ("prompt", "seed", *SETTINGS) else None) from error


def another(first: Order, number: int) -> Order:
    """The order of a further picture of a request: its seed is `number` higher."""
    seed = (first.metadata.seed + number) % (SEED_BOUND + 1)
    return dataclasses.replace(first, metadata=dataclasses.replace(first.metadata, seed=seed))


def shared_settings(catalogue: Catalogue) -> dict[str, Schema]:
    """Schemas of the settings, wide enough for every bundle; each bundle checks its own ranges after them."""
    shared: dict[str, Schema] = {}
    for served in catalogue:
        for name, schema in served.setting_schemas().items():
            if name in shared and "maximum" in schema:
                schema = {**schema, "maximum": max(schema["maximum"], shared[name]["maximum"])}
            shared[name] = schema
    return {name: {key: value for key, value in schema.items() if key != "default"} for name, schema in shared.items()}
