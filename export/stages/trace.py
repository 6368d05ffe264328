"""Tracing: every graph of the checkpoint as an ONNX file in float32, and the plan that connects them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from hart_edge.bundle.manifest import Plan, Precision
from hart_edge.bundle.memory import cache_peak
from hart_edge.bundle.settings import Sampling, Speed
from hart_edge.calib.graph_files import read_graph, weight_bytes
from hart_edge.calib.rewrite.attention_parts import LibraryInParts
from hart_edge.calib.scheme import CacheForm
from hart_edge.engines.base import EngineLibrary
from hart_edge.errors import BuildError
from hart_edge.export.plan_builder import build_plans
from hart_edge.export.run_plan import run_plan
from hart_edge.export.stages.context import BuildContext
from hart_edge.export.stages.read import Inputs, ReadResult, Source
from hart_edge.runtime.fill import fill_with
from hart_edge.runtime.loop import Array, Fill, Known, Runner, read_prompt


@dataclass(frozen=True)
class TraceResult:
    """folder: of the traced graphs, their weights beside them; plans: of every speed that the target has; parameters:
    per graph; cache: how keys and values are held where the arithmetic around them is float32; library: opens graphs
    on this machine, those of large pictures so that their scores fit into its memory."""

    source: Source
    sampling: Sampling
    folder: Path
    plans: Mapping[Speed, Plan]
    constants: Mapping[str, Array]
    parameters: Mapping[str, int]
    cache: CacheForm
    library: EngineLibrary

    @property
    def plan(self) -> Plan:
        """The exact one."""
        return self.plans[Speed.EXACT]

    @property
    def paths(self) -> dict[str, Path]:
        """The file of each graph."""
        return {name: self.folder / f"{name}.onnx" for name in self.source.graphs}

    def draw(
        self,
        runner: Runner,
        inputs: Inputs,
        seed: int,
        known: Known | None = None,
        previews: Collection[int] = (),
        speed: Speed = Speed.EXACT,
    ) -> Array:
        """Run the loop with the bundle's settings but its speed. Returns the image (1, 3, H, W), float32 in [0, 1].

        previews: scales before the last that are decoded as well.
        """
        return run_plan(self.plans[speed], runner, self.fill(inputs, seed), known=known, previews=previews)

    def read_prompt(self, runner: Runner, inputs: Inputs) -> Known:
        """Run the text model alone: what it leaves, for draw(). A build does so with all prompts before anything else,
        so that the text model's weights leave memory before the loop's come."""
        return read_prompt(self.plan, runner, self.fill(inputs, 0))

    def fill(self, inputs: Inputs, seed: int) -> Fill:
        """What makes the inputs, settings, constants and noise of a picture."""
        return fill_with(inputs, seed, self.sampling, self.constants.__getitem__)


def trace(context: BuildContext, read: ReadResult, folder: Path) -> TraceResult:
    """Plan the loop, and leave the traced graphs in an empty folder. Raises BuildError."""
    options, source = context.options, read.source
    config, graphs = source.model.config, source.graphs
    head_bytes = 4 * config.scale_tokens[-1] * sum(config.scale_tokens)  # of scores
    large = config.num_heads * head_bytes >= options.fused_from
    graphs["transformer"].fused = context.entry.graphs.fused_attention and large
    library = context.library
    if large and not graphs["transformer"].fused:
        at_once = max(1, options.fused_from // head_bytes)
        library = LibraryInParts(library, math.ceil(config.num_heads / at_once))
    if read.sampling.speed not in context.speeds:
        raise BuildError(
            f"--speed {read.sampling.speed}: expected {', '.join(context.speeds)} for target {options.target}, whose "
            "engines have one profile a scale; build for cpu or cuda, or with --speed exact"
        )
    plans, constants = build_plans(source.model, graphs, context.speeds)
    cache = CacheForm.FLOAT32
    if options.precision is Precision.INT8 and cache_peak(plans[Speed.EXACT]) >= options.small_cache_from:
        integer = context.entry.graphs.int8_activations and config.attn_l2_norm and not graphs["transformer"].fused
        cache = CacheForm.INT8_KEYS if integer else CacheForm.FLOAT16
    parameters = {}
    for name, graph in graphs.items():
        with context.step(f"tracing {name}") as step:
            path = folder / f"{name}.onnx"
            context.tools.trace(graph, path)
            step.size = weight_bytes(read_graph(path))
            parameters[name] = step.size // 4
    return TraceResult(source, read.sampling, folder, plans, constants, parameters, cache, library)
