"""Figures for Prometheus: what was asked, what came of it, how long it took, and what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from hart_edge.server.jobs import Job
    from hart_edge.server.pool import Pool

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 300)  # seconds of a picture


class Metrics:
    """One registry of its own, so that two servers in a process do not meet."""

    def __init__(self, pool: Pool) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "hart_edge_http_requests", "Answers by route and status.", ["route", "status"], registry=self._registry
        )
        self._pictures = Counter(
            "hart_edge_pictures", "Pictures by bundle and outcome.", ["bundle", "outcome"], registry=self._registry
        )
        self._seconds = Histogram(
            "hart_edge_picture_seconds", "Drawing time.", ["bundle"], buckets=BUCKETS, registry=self._registry
        )
        for name, words, value in (
            ("hart_edge_queue", "Pictures that wait.", lambda: pool.waiting),
            ("hart_edge_drawing", "Pictures that are being drawn.", lambda: len(pool.drawing)),
            ("hart_edge_workers_ready", "Workers that can draw.", lambda: pool.ready),
            ("hart_edge_worker_restarts", "Workers that were replaced.", lambda: pool.restarts),
        ):
            Gauge(name, words, registry=self._registry).set_function(value)

    def answered(self, route: str, status: int) -> None:
        self._requests.labels(route, str(status)).inc()

    def ended(self, job: Job, seconds: float) -> None:
        self._pictures.labels(job.order.bundle, str(job.state)).inc()
        if seconds:
            self._seconds.labels(job.order.bundle).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)
