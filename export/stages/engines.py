"""Engines: the bundle of graphs becomes one of engines, where this machine has the library that makes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hart_edge.bundle.card import read_hints, write_card
from hart_edge.bundle.manifest import Manifest
from hart_edge.engines.base import EngineBuilder
from hart_edge.engines.bundle_build import EngineDone, EngineJob, build_engines
from hart_edge.errors import BuildError, EngineError, border
from hart_edge.export.options import BuildOptions, Progress, StepDone
from hart_edge.staging import staged_folder


def build_for_engines(
    options: BuildOptions,
    builder: EngineBuilder,
    progress: Progress,
    build_graphs: Callable[[BuildOptions], Manifest],
    name: str,
    machine: str,
) -> Manifest:
    """A bundle of engines under options.out; or the portable one, where it was asked for or is all that can be."""
    builder.check_precision(options.precision, options.engines)
    if options.portable:
        return _portable(options, progress, build_graphs, f"target {options.target}: a portable bundle, as asked for")
    try:
        settings = builder.prepare(options.engines)
    except EngineError as reason:
        return _portable(options, progress, build_graphs, str(reason))
    problem, remedy = "the bundle cannot be made", "choose another --out; python -X dev shows where"
    with border(BuildError, options.out, problem, remedy), staged_folder(options.out) as folder:
        graphs = folder / options.out.name
        manifest = build_graphs(replace(options, out=graphs, engines=settings))

        def done(engine: EngineDone) -> None:
            label = f"engine {engine.component}{' (kept)' if engine.again else ''}"
            progress(StepDone(label, engine.seconds, engine.bytes))

        def card(finished: Manifest, seconds: float) -> str:
            limits, hints = options.effective_limits, read_hints(graphs)
            return write_card(finished, machine, seconds, options.command, limits, hints)

        job = EngineJob(graphs, manifest, options.target, options.out, name, settings, card)
        return build_engines(job, builder, progress, done)


def _portable(
    options: BuildOptions, progress: Progress, build_graphs: Callable[[BuildOptions], Manifest], reason: str
) -> Manifest:
    manifest = build_graphs(options)
    progress(StepDone(f"no engines: {reason}", 0.0, None))
    return manifest
