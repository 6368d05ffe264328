"""A build: a checkpoint becomes a bundle, by a chain of stages, each a function from results to a result.

    read -> trace -> prove -> record -> (calibrate) -> decide -> write -> check -> finish

Every graph is compared with the reference twice, as traced and as written, before anything takes its name.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from hart_edge.bundle.card import describe_machine
from hart_edge.bundle.manifest import Manifest
from hart_edge.bundle.writer import bundle_name
from hart_edge.calib.calibrate.ranges import CalibratedRanges
from hart_edge.export.options import BuildOptions, Progress
from hart_edge.export.stages.calibrate import calibrate
from hart_edge.export.stages.check import check, check_traced
from hart_edge.export.stages.context import open_context
from hart_edge.export.stages.decide import decide
from hart_edge.export.stages.engines import build_for_engines
from hart_edge.export.stages.finish import finish
from hart_edge.export.stages.prove import prove
from hart_edge.export.stages.read import read
from hart_edge.export.stages.record import record
from hart_edge.export.stages.trace import trace
from hart_edge.export.stages.write import write
from hart_edge.export.tools import TOOLS, Tools


def build(options: BuildOptions, progress: Progress = lambda _: None, *, tools: Tools = TOOLS) -> Manifest:
    """Build a bundle under options.out and return its manifest.

    Raises CheckpointError, ParityError, BuildError or EngineError; then nothing is left under options.out, and what
    was there before is still there.
    """
    builder = tools.registry[options.target].builder
    if builder is None:
        return build_graphs(options, progress, tools)
    name = bundle_name(options.out, random=isinstance(options.checkpoint, str))
    of_graphs = functools.partial(build_graphs, progress=progress, tools=tools)
    return build_for_engines(options, builder, progress, of_graphs, name, describe_machine())


def build_graphs(options: BuildOptions, progress: Progress, tools: Tools) -> Manifest:
    """Build a bundle of graphs under options.out and return its manifest."""
    context = open_context(options, progress, tools)
    with tools.write_bundle(options.out) as writer:
        with tempfile.TemporaryDirectory(prefix="scratch-", dir=writer.folder) as scratch:
            found = read(context)
            traced = trace(context, found, Path(scratch))
            prove(context, traced)
            recorded = record(context, traced, Path(scratch) / "calls")
            check_traced(context, traced, recorded)
            ranges = calibrate(context, found, traced)
            decided = decide(context, found, traced, recorded.exact, ranges)
            written = write(context, traced, decided, ranges, writer.folder / "graphs")
            checked = check(context, traced, recorded, decided, written)
        return finish(context, writer, traced, ranges, decided, written, checked)


def calibrate_checkpoint(
    options: BuildOptions, progress: Progress, scratch: Path, *, tools: Tools = TOOLS
) -> CalibratedRanges:
    """The INT8 ranges of options.checkpoint, by the first stages of a build. scratch: an empty folder for its graphs.

    Raises CheckpointError, BuildError or EngineError.
    """
    context = open_context(options, progress, tools)
    found = read(context)
    traced = trace(context, found, scratch)
    prove(context, traced)
    traced.source.free_weights()
    ranges = calibrate(context, found, traced)
    assert ranges is not None  # of precision int8
    return ranges
