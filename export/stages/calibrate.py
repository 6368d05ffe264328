"""Calibration: the traced graphs run the loop on prompts, and every tensor that INT8 could hold gets its range.

In: traced graphs in float32, instrumented with further outputs, and the inputs of the prompts. Out: CalibratedRanges,
from which the INT8 scheme of any target can be made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.manifest import Precision, Target
from hart_edge.calib.calibrate.collector import Collector
from hart_edge.calib.calibrate.prompts import FIRST_SEED
from hart_edge.calib.calibrate.range_rules import RangeRule, default_rule
from hart_edge.calib.calibrate.ranges import ActivationRange, CalibratedRanges
from hart_edge.calib.calibrate.smoothing import ALPHAS, choose_ranges
from hart_edge.calib.calibrate.statistics import TensorStatistics
from hart_edge.calib.graph_files import read_graph, read_tensor
from hart_edge.calib.scheme import Scheme, scheme_of
from hart_edge.engines.base import EngineLibrary
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import BuildError
from hart_edge.export.stages.context import BuildContext
from hart_edge.export.stages.read import Inputs, ReadResult
from hart_edge.export.stages.trace import TraceResult

PREVIEWS = 3  # of each picture, spread over the scales: the decoder draws them too, and they are unlike its pictures


def calibrate(context: BuildContext, read: ReadResult, traced: TraceResult) -> CalibratedRanges | None:
    """The ranges of INT8: those that were read, or collected here; None at other precisions.

    Raises BuildError for a tensor that is not finite, or of which calibration saw nothing.
    """
    if context.options.precision is not Precision.INT8 or read.ranges is not None:
        return read.ranges
    inputs, source = read.calibration_inputs, traced.source
    with context.step(f"calibrating on {len(inputs)} prompts"):
        if not inputs:
            raise BuildError("calibration: expected at least one prompt, found none; name a file with --prompts")
        statistics = collect_statistics(traced, inputs, traced.library)
        rules = {name: context.options.range_rule or default_rule(name) for name in statistics}
        alphas = () if source.random else ALPHAS  # random weights have no outliers to move
        found = {name: ranges_of(name, traced.folder, own, rules[name], alphas) for name, own in statistics.items()}
        used = {name: str(rule) for name, rule in rules.items()}
        return CalibratedRanges(source.weights_sha256, len(inputs), hash_inputs(inputs), used, found)


def collect_statistics(
    traced: TraceResult, inputs: Sequence[Inputs], library: EngineLibrary
) -> dict[str, dict[str, TensorStatistics]]:
    """Statistics of every tensor that INT8 would hold, per graph."""
    paths, scales = traced.paths, len(traced.source.model.patch_nums)
    previews = {(scales - 1) * part // PREVIEWS for part in range(PREVIEWS)}
    with Collector(paths, {name: calibrated_scheme(name) for name in paths}, library) as collector:
        contexts = []
        for one in inputs:
            contexts.append(traced.read_prompt(collector, one))
            collector.end_prompt()
        collector.begin_again("text_model")
        for index, (one, known) in enumerate(zip(inputs, contexts, strict=True)):
            traced.draw(collector, one, FIRST_SEED + index, known, previews)
            collector.end_prompt()
    return collector.statistics


def ranges_of(
    name: str,
    folder: Path,
    statistics: Mapping[str, TensorStatistics],
    rule: RangeRule,
    alphas: Sequence[float],
    scheme: Scheme | None = None,
) -> dict[str, ActivationRange]:
    """The ranges of one graph, whose traced file lies in a folder. scheme: None for that of a build."""
    model = read_graph(folder / f"{name}.onnx")
    weights = {tensor.name: tensor for tensor in model.graph.initializer}

    def read(weight: str) -> NDArray[Any]:
        return read_tensor(weights[weight], folder)

    return choose_ranges(model, scheme or calibrated_scheme(name), statistics, read, rule, alphas)


def calibrated_scheme(name: str) -> Scheme:
    """The scheme whose tensors get ranges: that with the most INT8 activations."""
    return scheme_of(name, Precision.INT8, REGISTRY[Target.CPU].graphs)


def hash_inputs(inputs: Sequence[Inputs]) -> str:
    """One SHA-256 of all that the loop was run on. Types have torch's names, as in every file of ranges so far."""
    digest = hashlib.sha256()
    for one in inputs:
        for name, array in sorted(one.items()):
            digest.update(f"{name} {array.shape} torch.{array.dtype}\n".encode())
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
