"""Calibration as a stage of the build: the real loop is run on prompts, and every INT8 tensor gets its range.

In: traced graphs in float32 and the inputs of the prompts. Out: CalibratedRanges, from which the INT8 form of any
target can be made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from calib.collect import Collector
from calib.forms import form_of
from calib.graph_files import read_graph, read_tensor
from calib.observers import DEFAULT, Observer
from calib.prompts import FIRST_SEED
from calib.ranges import CalibratedRanges
from calib.smoothing import STRENGTHS, choose_ranges
from engines.base import EngineLibrary
from export.source import Inputs, Source
from runtime.errors import BuildError
from runtime.manifest import Precision, Target

# Executes the plan on (inputs, seed), showing every call to the last argument (graph, inputs, outputs).
Walk = Callable[[Inputs, int, Callable[..., None]], Tensor]


def calibrate(
    source: Source,
    folder: Path,
    inputs: Sequence[Inputs],
    walk: Walk,
    library: EngineLibrary,
    observer: Observer | None = None,
) -> CalibratedRanges:
    """Ranges of a model whose traced graphs lie in a folder. observer: for every graph; None: each its own.

    Raises BuildError for a tensor that is not finite, or of which calibration saw nothing.
    """
    if not inputs:
        raise BuildError("calibration: expected at least one prompt, found none; name a file with --prompts")
    # What the form with the most INT8 activations needs serves every target.
    forms = {name: form_of(name, Precision.INT8, Target.CPU) for name in source.graphs}
    paths = {name: folder / f"{name}.onnx" for name in source.graphs}
    observers = {name: observer or DEFAULT.get(name, Observer.MIN_MAX) for name in source.graphs}
    with Collector(paths, forms, library) as collector:
        for index, one in enumerate(inputs):

            def observe(graph: str, feeds: dict[str, Tensor], _: dict[str, Tensor]) -> None:
                collector(graph, {name: tensor.numpy() for name, tensor in feeds.items()})

            walk(one, FIRST_SEED + index, observe)
            collector.end_prompt()
    strengths = () if source.random else STRENGTHS  # random weights have no outliers to move
    found = {}
    for name, statistics in collector.statistics.items():
        model = read_graph(paths[name])
        weights = {tensor.name: tensor for tensor in model.graph.initializer}

        def read(weight: str) -> np.ndarray:
            return read_tensor(weights[weight], folder)  # noqa: B023  called before the loop goes on

        found[name] = choose_ranges(model, forms[name], statistics, read, observers[name], strengths)
    used = {name: str(observers[name]) for name in found}
    return CalibratedRanges(source.weights_sha256, len(inputs), hash_inputs(inputs), used, found)


def hash_inputs(inputs: Sequence[Mapping[str, Tensor]]) -> str:
    """One SHA-256 of all that the loop was run on."""
    digest = hashlib.sha256()
    for one in inputs:
        for name, tensor in sorted(one.items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(np.ascontiguousarray(tensor.numpy()).tobytes())
    return digest.hexdigest()
