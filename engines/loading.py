"""A bundle's folder becomes a pipeline: verified, and opened in the engine library of its target."""

from __future__ import annotations

from pathlib import Path

from hart_edge.bundle.manifest import Target
from hart_edge.bundle.verify import Bundle, open_bundle
from hart_edge.engines.onnxruntime.runner import OnnxRuntimeRunner, thread_count
from hart_edge.runtime.loop import Runner
from hart_edge.runtime.pipeline import Pipeline


def load(path: str | Path, *, threads: int | None = None, low_memory: bool = False) -> Pipeline:
    """Open and verify a bundle and return a reusable pipeline.

    threads: threads inside an operator, None for one a core; engines on a GPU have none. low_memory: every graph is
    let go after its last step, the text model before the first scale, and loaded again for the next picture: less
    memory, more time (docs/memory.md). Raises BundleError, EngineError.
    """
    bundle, threads = open_bundle(path), thread_count(threads)
    return Pipeline(bundle, make_runner(bundle, threads, low_memory=low_memory), low_memory=low_memory)


def make_runner(bundle: Bundle, threads: int | None = None, *, low_memory: bool = False) -> Runner:
    """The runner for a bundle's target."""
    if bundle.manifest.target.name in (Target.CPU, Target.CUDA):
        return OnnxRuntimeRunner(bundle, threads)
    from hart_edge.engines.tensorrt.runner import TensorRTRunner

    return TensorRTRunner(bundle, low_memory=low_memory)
