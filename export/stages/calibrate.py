"""Calibration as a stage of the build: the real loop is run on prompts, and every INT8 tensor gets its range.

In: traced graphs in float32, which compute the loop, and the inputs of the prompts. Out: CalibratedRanges, from which
the INT8 scheme of any target can be made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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
from hart_edge.export.stages.read import Inputs, Source
from hart_edge.export.walk import Execute

Walk = Callable[[Inputs, int, Execute], Tensor]  # executes the plan on inputs and a seed; returns the image
RunGraph = Callable[[str, Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]  # name and inputs -> outputs


def calibrate(
    source: Source,
    folder: Path,
    inputs: Sequence[Inputs],
    walk: Walk,
    library: EngineLibrary,
    rule: RangeRule | None = None,
) -> CalibratedRanges:
    """Ranges of a model whose traced graphs lie in a folder. rule: for every graph; None: each its own.

    Raises BuildError for a tensor that is not finite, or of which calibration saw nothing.
    """
    if not inputs:
        raise BuildError("calibration: expected at least one prompt, found none; name a file with --prompts")
    statistics = watch_loop(source, folder, inputs, walk, library)
    rules = {name: rule or default_rule(name) for name in statistics}
    alphas = () if source.random else ALPHAS  # random weights have no outliers to move
    found = {name: ranges_of(name, folder, own, rules[name], alphas) for name, own in statistics.items()}
    used = {name: str(own) for name, own in rules.items()}
    return CalibratedRanges(source.weights_sha256, len(inputs), hash_inputs(inputs), used, found)


def watch_loop(
    source: Source, folder: Path, inputs: Sequence[Inputs], walk: Walk, library: EngineLibrary
) -> dict[str, dict[str, TensorStatistics]]:
    """Statistics of every tensor that INT8 would hold, per graph."""
    schemes = {name: calibrated_scheme(name) for name in source.graphs}
    paths = {name: folder / f"{name}.onnx" for name in source.graphs}
    with Collector(paths, schemes, library) as collector:
        for index, one in enumerate(inputs):
            walk(one, FIRST_SEED + index, by_arrays(collector))
            collector.end_prompt()
    return collector.statistics


def by_arrays(run: RunGraph) -> Execute:
    """An Execute of graphs that take and return numpy's arrays."""

    def execute(graph: str, inputs: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
        found = run(graph, {name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: torch.from_numpy(found[name]) for name in wanted}

    return execute


def ranges_of(
    name: str,
    folder: Path,
    statistics: Mapping[str, TensorStatistics],
    rule: RangeRule,
    alphas: Sequence[float],
) -> dict[str, ActivationRange]:
    """The ranges of one graph."""
    model = read_graph(folder / f"{name}.onnx")
    weights = {tensor.name: tensor for tensor in model.graph.initializer}

    def read(weight: str) -> np.ndarray:
        return read_tensor(weights[weight], folder)

    return choose_ranges(model, calibrated_scheme(name), statistics, read, rule, alphas)


def calibrated_scheme(name: str) -> Scheme:
    """The scheme that ranges are made for: the one with the most INT8 activations."""
    return scheme_of(name, Precision.INT8, REGISTRY[Target.CPU].graphs)


def hash_inputs(inputs: Sequence[Mapping[str, Tensor]]) -> str:
    """One SHA-256 of all that the loop was run on."""
    digest = hashlib.sha256()
    for one in inputs:
        for name, tensor in sorted(one.items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
