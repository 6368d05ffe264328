"""The last stage of a build for TensorRT: the bundle of graphs becomes one of engines, where this machine can do it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from hart_edge.bundle.card import write_card
from hart_edge.bundle.manifest import Manifest, Precision
from hart_edge.calib.scheme import fp16_products_only
from hart_edge.engines.bundle_build import EngineDone, EngineJob, build_engines
from hart_edge.engines.registry import builder
from hart_edge.errors import BuildError, EngineError
from hart_edge.export.options import BuildOptions, Progress, StepDone


def build_for_engines(
    options: BuildOptions,
    progress: Progress,
    build_graphs: Callable[[BuildOptions], Manifest],
    name: str,
    machine: str,
) -> Manifest:
    """A bundle of engines under options.out; or the portable one, where it was asked for or is all that can be."""
    check_precision(options)
    if options.portable:
        return _portable(options, progress, build_graphs, f"target {options.target}: a portable bundle, as asked for")
    library = builder(options.target)
    try:
        settings = library.prepare(options.engines)
    except EngineError as reason:
        return _portable(options, progress, build_graphs, str(reason))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{options.out.name}.graphs-", dir=options.out.parent) as folder:
        graphs = Path(folder) / options.out.name
        manifest = build_graphs(replace(options, out=graphs, engines=settings))

        def done(engine: EngineDone) -> None:
            label = f"engine {engine.component}{' (kept)' if engine.again else ''}"
            progress(StepDone(label, engine.seconds, engine.bytes))

        def card(finished: Manifest, seconds: float) -> str:
            return write_card(finished, machine, seconds, options.command, options.held_to)

        job = EngineJob(graphs, manifest, options.target, options.out, name, settings, card)
        return build_engines(job, library, progress, done)


def check_precision(options: BuildOptions) -> None:
    """Raise BuildError at once for a precision that the GPUs cannot compute, and not after minutes of tracing."""
    if not fp16_products_only(options.target, options.engines.architectures):
        return
    if options.precision is Precision.FP32:
        raise BuildError(
            f"target {options.target}: it has no matrix products in float32 for sm_75; use --precision fp16, or other "
            "--architectures"
        )
    if options.precision is Precision.INT8:
        raise BuildError(
            f"target {options.target}: it supports no INT8 weights on sm_75; use --precision fp16, or other "
            "--architectures"
        )


def _portable(
    options: BuildOptions, progress: Progress, build_graphs: Callable[[BuildOptions], Manifest], reason: str
) -> Manifest:
    manifest = build_graphs(options)
    progress(StepDone(f"no engines: {reason}", 0.0, None))
    return manifest
