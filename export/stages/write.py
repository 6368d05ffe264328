"""Writing: every traced graph, rewritten in its scheme, under its name in the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hart_edge.calib.calibrate.ranges import CalibratedRanges
from hart_edge.calib.graph_files import read_graph
from hart_edge.export.stages.context import BuildContext
from hart_edge.export.stages.decide import DecideResult
from hart_edge.export.stages.trace import TraceResult
from hart_edge.export.tensorrt_lint.lint import require_clean


@dataclass(frozen=True)
class WriteResult:
    """folder: of the written graphs; sizes: bytes of each, with the weights beside it."""

    folder: Path
    sizes: Mapping[str, int]


def write(
    context: BuildContext, traced: TraceResult, decided: DecideResult, ranges: CalibratedRanges | None, folder: Path
) -> WriteResult:
    """Write the graphs into a folder, which is made. Raises BuildError for one that TensorRT would not take."""
    options, tools, sizes = context.options, context.tools, {}
    folder.mkdir()
    with context.step(f"writing graphs at {options.precision}") as step:
        for name, decision in decided.decisions.items():
            model = tools.rewrite(
                read_graph(traced.paths[name]),
                decision.scheme,
                ranges.graphs.get(name, {}) if ranges else {},
                traced.folder,
                decided.wide.get(name, frozenset()),
                decision.excluded,
                decision.weight_only,
                cache=decided.cache,
            )
            path = folder / f"{name}.onnx"
            sizes[name] = tools.save(model, path, traced.folder, options.external_from)
            if context.entry.graphs.tensorrt_parser:
                require_clean(path)
        step.size = sum(sizes.values())
    return WriteResult(folder, sizes)
