"""A batch on Ray: Ray Data hands prompts to a pool of actors, each with a pipeline of its own.

In: a batch's plan and items, and the address of a cluster. Out: pictures, in the order in which they are done; the
process that asked writes them, so nodes share no folder. What every node needs is hart-edge[cpu,ray] and the bundle at
the same path. Pictures follow from prompts and seeds, so how many actors there are changes nothing but the time.
"""

from __future__ import annotations

import io
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray
from PIL import Image

from hart_edge.batch.drawing import BatchPlan, check_batch, draw
from hart_edge.batch.prompts import Item
from hart_edge.bundle.verify import open_bundle
from hart_edge.errors import EngineError, border
from hart_edge.runtime.picture_metadata import PictureMetadata

PATIENCE = 10.0  # seconds for a cluster to answer at all
BLOCK = 4  # pictures that are handed out together: what a batch that is killed may draw again, for each actor


class Drawer:
    """An actor's work: opens the bundle once, then draws one row after the other."""

    def __init__(self, plan: BatchPlan) -> None:
        self._plan, self._pipeline = plan, plan.open()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        metadata = PictureMetadata.from_json(row["metadata"])
        return {"place": row["place"], "picture": draw(self._pipeline, metadata, self._plan.settings)}


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to a cluster; address "local" starts one in this machine for the time. Raises EngineError."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    remedy = "start one with ray start --head, or pass --address local"
    with border(EngineError, f"--address {address}", "no Ray cluster answers there", remedy):
        require_listener(address)
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, ignore_reinit_error=True)
    try:
        yield
    finally:
        ray.shutdown()


def require_listener(address: str) -> None:
    """Raise OSError where nothing listens at HOST:PORT; Ray itself would try again for minutes."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PATIENCE).close()


def draw_on_ray(
    plan: BatchPlan, items: Sequence[Item], expected: Mapping[int, PictureMetadata], workers: int | None
) -> Iterator[tuple[int, bytes]]:
    """(place, file) of every item, in the order in which they are done. workers: actors, None for as many as fit."""
    if not items:
        return
    cores = plan.threads or 1
    cluster: Any = ray  # whose types end here: it takes classes as functions
    most = max(1, int(cluster.cluster_resources().get("CPU", 1) // cores))
    actors = min(workers or most, most, len(items))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    rows = [{"place": item.place, "metadata": expected[item.place].to_json()} for item in items]
    blocks = min(len(rows), max(actors, -(-len(rows) // BLOCK)))
    drawn = cluster.data.from_items(rows, override_num_blocks=blocks).map(
        Drawer,
        fn_constructor_args=(BatchPlan(plan.bundle.resolve(), plan.settings, cores),),
        compute=cluster.data.ActorPoolStrategy(size=actors),
        num_cpus=cores,
    )
    with border(EngineError, "the batch on Ray", "failed", "see ray's logs; the same command goes on from there"):
        for row in drawn.iter_rows():
            yield int(row["place"]), bytes(row["picture"])


class BundleOnRay:
    """A bundle whose pictures are drawn on a cluster: what `hart-edge eval` judges in place of a pipeline of its own.

    side: of its pictures, in pixels. There must be a connection (connected()) while it draws.
    """

    def __init__(self, plan: BatchPlan, workers: int | None = None) -> None:
        self._plan, self._workers = plan, workers
        self.name, self.side = str(plan.bundle), open_bundle(plan.bundle).manifest.image_size

    def draw(self, prompts: Sequence[str], seeds: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        """A picture (side, side, 3) a prompt, in order. Raises HartEdgeError."""
        items = [Item(place, *each, place + 1) for place, each in enumerate(zip(prompts, seeds, strict=True))]
        expected = check_batch(self._plan, items, self._plan.bundle)
        early: dict[int, bytes] = {}
        following = 0
        for place, picture in draw_on_ray(self._plan, items, expected, self._workers):
            early[place] = picture
            while following in early:
                with Image.open(io.BytesIO(early.pop(following))) as image:
                    yield np.asarray(image.convert("RGB"))
                following += 1
