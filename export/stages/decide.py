"""What each component becomes: its scheme, the layers that stay out of INT8, and the tensors that stay in float32.

In: traced graphs, ranges, and the reference's calls. Out: a Decision per component, with its reason for the manifest
and the card. At INT8 on a CPU the scheme is the fastest that was measured on this machine, unless one was asked for.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hart_edge.bundle.manifest import ComponentName, Precision, TensorSpec
from hart_edge.calib.calibrate.ranges import CalibratedRanges
from hart_edge.calib.graph_files import read_graph
from hart_edge.calib.quantizable_nodes import find_quantizable_nodes
from hart_edge.calib.scheme import CacheForm, Scheme, scheme_of, specs_in
from hart_edge.errors import BuildError
from hart_edge.export.parity.recording import Recording
from hart_edge.export.stages.context import BuildContext
from hart_edge.export.stages.int8_choice import Decision, Int8Choice
from hart_edge.export.stages.overflow import find_overflow
from hart_edge.export.stages.read import ReadResult
from hart_edge.export.stages.trace import TraceResult


@dataclass(frozen=True)
class DecideResult:
    """Per component. inputs, outputs: as its graph has them in its scheme; wide: tensors that FP16 may not hold. cache:
    how keys and values are held."""

    decisions: Mapping[str, Decision]
    cache: CacheForm
    inputs: Mapping[str, tuple[TensorSpec, ...]]
    outputs: Mapping[str, tuple[TensorSpec, ...]]
    wide: Mapping[str, frozenset[str]]

    @property
    def specs(self) -> dict[str, tuple[TensorSpec, ...]]:
        """Inputs and outputs of every graph."""
        return {name: (*self.inputs[name], *self.outputs[name]) for name in self.decisions}

    @property
    def schemes(self) -> dict[str, Scheme]:
        return {name: decision.scheme for name, decision in self.decisions.items()}


def decide(
    context: BuildContext,
    read: ReadResult,
    traced: TraceResult,
    recording: Recording,
    ranges: CalibratedRanges | None,
) -> DecideResult:
    """Decide for every component. ranges: of INT8. Raises BuildError where no scheme comes near the reference."""
    options, graphs = context.options, traced.source.graphs
    excluded = weights_like(traced.paths, options.excluded)
    decisions = {name: Decision(_scheme(context, name), excluded=excluded[name]) for name in graphs}
    cache = traced.cache
    wide = find_overflow(context, read, traced, {name: decision.scheme for name, decision in decisions.items()})
    if ranges is not None:
        with context.step("choosing INT8 schemes"):
            limits = options.layer_limits if traced.source.has_likely_codes else None
            choice = Int8Choice(
                traced.folder,
                graphs,
                ranges,
                traced.library,
                context.say,
                options.effective_limits.min_psnr,
                random=traced.source.random,
                cache=cache,
                wide=wide,
                progress=context.progress,
                rewrite=context.tools.rewrite,
            )
            decisions, cache = choice.decide(decisions, options.int8_scheme, recording, limits)
    schemes = {name: decision.scheme for name, decision in decisions.items()}
    return DecideResult(
        decisions,
        cache,
        {name: specs_in(graph.inputs, schemes[name], cache) for name, graph in graphs.items()},
        {name: specs_in(graph.outputs, schemes[name], cache) for name, graph in graphs.items()},
        wide,
    )


def _scheme(context: BuildContext, name: str) -> Scheme:
    """The scheme of a component before anything is measured."""
    options, own = context.options, name == ComponentName.TEXT_MODEL
    precision = options.text_precision if own and options.text_precision is not None else options.precision
    found = scheme_of(name, precision, context.entry.graphs, options.engines.architectures)
    # Ranges are collected where the whole bundle is INT8; without any, activations get theirs as the graph runs.
    return Scheme.DYNAMIC if found is Scheme.U8S8 and options.precision is not Precision.INT8 else found


def weights_like(graphs: Mapping[str, Path], patterns: Iterable[str]) -> dict[str, frozenset[str]]:
    """Per graph the weights whose names match a pattern, as in `transformer.blocks.0.*`. Raises BuildError if none."""
    found: dict[str, set[str]] = {name: set() for name in graphs}
    names = {
        name: {node.weight for node in find_quantizable_nodes(read_graph(path).graph)} for name, path in graphs.items()
    }
    for pattern in patterns:
        matches = {name: set(fnmatch.filter(weights, f"{pattern}*")) for name, weights in names.items()}
        if not any(matches.values()):
            example = min(weight for weights in names.values() for weight in weights)
            raise BuildError(f"--exclude {pattern}: no weight has a name like this; they are like {example}")
        for name, weights in matches.items():
            found[name] |= weights
    return {name: frozenset(weights) for name, weights in found.items()}
