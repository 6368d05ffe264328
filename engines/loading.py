"""A bundle's folder becomes a pipeline: verified, and opened in the engine library of its target."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from hart_edge.bundle.manifest import Target
from hart_edge.bundle.memory import shortage_told
from hart_edge.bundle.verify import open_bundle
from hart_edge.engines.registry import REGISTRY, Registry
from hart_edge.errors import EngineError, bordered
from hart_edge.runtime.pipeline import Pipeline

MOST_THREADS = 1024


@bordered(
    EngineError, "its engine library cannot open it", "see hart-edge doctor; update the library or rebuild the bundle"
)
def load(
    path: str | Path,
    *,
    threads: int | None = None,
    low_memory: bool = False,
    prepared: str | Path | None = None,
    registry: Registry = REGISTRY,
) -> Pipeline:
    """Open and verify a bundle and return a reusable pipeline.

    threads: threads inside an operator, None for one a core; engines on a GPU have none. low_memory: every graph is
    unloaded after its last step, the text model before the first scale, and loaded again for the next picture: less
    memory, more time (docs/memory.md), and one picture at a time. prepared: a folder, of this machine and this user
    alone, for the graphs of a cpu bundle as the library has them once they are open: written when a graph is opened
    first, mapped from then on, so that processes share its memory, and one that was unloaded opens faster again.
    registry: the engine libraries, by default those that come along. Raises BundleError, EngineError, OutOfMemoryError.

        with hart_edge.load("bundles/mine", threads=2) as pipe:
            pipe.generate("a red heart").save("heart.png")
    """
    threads = thread_count(threads)
    with shortage_told(low_memory=low_memory):
        bundle = open_bundle(path)
    entry = registry[bundle.manifest.target.name]
    if prepared is not None and not entry.prepares:
        raise EngineError(
            f"prepared: expected a bundle for {Target.CPU}, found one for {entry.target}, whose engines are prepared "
            "when they are built; leave the folder out"
        )
    further = {} if prepared is None else {"prepared": Path(prepared)}
    with shortage_told(bundle.manifest, entry.memory, low_memory=low_memory):
        runner = entry.open_runner(bundle, threads=threads, low_memory=low_memory, **further)
    again = partial(load, bundle.folder, threads=threads, low_memory=low_memory, prepared=prepared)
    return Pipeline(
        bundle,
        runner,
        low_memory=low_memory,
        memory=entry.memory,
        reopen=again if registry is REGISTRY else partial(again, registry=registry),
    )


def thread_count(threads: int | None) -> int | None:
    """A checked thread count. Raises EngineError."""
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or not 1 <= threads <= MOST_THREADS:
        raise EngineError(f"threads: expected an integer from 1 to {MOST_THREADS}, or None, found {threads!r}")
    return int(threads)
