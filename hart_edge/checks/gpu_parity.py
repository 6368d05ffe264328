"""Engines held against ONNX Runtime, graph by graph and scale by scale, and whole pictures.

In: a pipeline of engines and one of the graphs that they were made from. Out: a Check per graph and scale, and a
PictureCheck per seed. Every engine gets the very inputs that ONNX Runtime got, so errors do not add up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hart_edge.bundle.manifest import Manifest, Precision
from hart_edge.engines.onnxruntime.runner import OnnxRuntimeRunner
from hart_edge.errors import HartEdgeError, InputError
from hart_edge.runtime.context import Context
from hart_edge.runtime.loop import Array, Buffers, execute
from hart_edge.runtime.pipeline import Pipeline

# Largest difference over the largest value of the tensor, as at build time; float32 may be TF32 on a GPU.
TOLERANCE = {Precision.FP32: 1e-2, Precision.FP16: 3e-2, Precision.INT8: 0.4}
CHOICES = frozenset({"indices", "codes", "latent"})  # of the graph `tokens`: one ulp can choose another code
AGREEMENT = 0.9  # share of tokens that choose the same
SAME_PICTURE = 25.0  # mean difference in 8-bit steps; every scale multiplies rounding, another picture differs by 50


@dataclass(frozen=True)
class Check:
    """error: the largest of the graph's outputs; agreement: share of tokens with the same code, None without choice."""

    graph: str
    scale: int | None
    tensor: str
    error: float
    tolerance: float
    agreement: float | None

    @property
    def ok(self) -> bool:
        return self.error <= self.tolerance and (self.agreement is None or self.agreement >= AGREEMENT)


@dataclass(frozen=True)
class PictureCheck:
    """difference: mean, in 8-bit steps, of a picture of the engines from that of ONNX Runtime."""

    seed: int
    difference: float
    failure: str | None

    @property
    def ok(self) -> bool:
        return self.failure is None and self.difference <= SAME_PICTURE


class Beside:
    """A runner that computes with ONNX Runtime, and checks an engine on the same inputs beside it."""

    def __init__(self, reference: OnnxRuntimeRunner, engines: Pipeline) -> None:
        self.reference, self.engines, self.checks = reference, engines, list[Check]()
        self._steps = iter(engines.manifest.plan.steps)

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self.reference.run(graph, inputs, outputs)
        found = {name: np.empty_like(array) for name, array in outputs.items()}
        self.engines.runner.run(graph, inputs, found)
        component = next(each for each in self.engines.manifest.components if each.name == graph)
        self.checks.append(compare(graph, next(self._steps).scale, outputs, found, TOLERANCE[component.precision]))


def check_graphs(engines: Pipeline, graphs: Pipeline, prompt: str, seed: int = 7) -> Iterator[Check]:
    """A Check for every step of the plan, in order. Raises InputError for bundles that do not belong together."""
    check_pair(engines.manifest, graphs.manifest)
    assert isinstance(graphs.runner, OnnxRuntimeRunner)  # check_pair: a bundle of graphs
    beside = Beside(graphs.runner, engines)
    plan = graphs.manifest.plan
    buffers = Buffers(plan, 1, graphs.fill(sample_prompt(graphs.manifest, prompt), seed), frozenset())
    done = 0
    for _ in execute(plan, beside, buffers):
        yield from beside.checks[done:]
        done = len(beside.checks)
    yield from beside.checks[done:]


def check_pair(engines: Manifest, graphs: Manifest) -> None:
    if graphs.target.engines is not None:
        raise InputError("--reference: expected a bundle of graphs, found engines; name the bundle they were made from")
    if engines.plan != graphs.plan:
        raise InputError("--reference: expected the bundle that the engines were made from, found another plan")


def compare(
    graph: str, scale: int | None, expected: Mapping[str, Array], found: Mapping[str, Array], tolerance: float
) -> Check:
    worst, error, agreement = "", 0.0, None
    for name, reference in expected.items():
        if graph == "tokens" and name in CHOICES:
            same = np.isclose(reference, found[name], atol=1e-2).reshape(*reference.shape[:2], -1).all(-1)
            agreement = min(1.0 if agreement is None else agreement, float(same.mean()))
            continue
        here = difference(reference, found[name])
        if not worst or here > error:
            worst, error = name, here
    return Check(graph, scale, worst, error, tolerance, agreement)


def difference(expected: Array, found: Array) -> float:
    """The largest difference over the largest value, infinite where one holds what is not finite."""
    if expected.size == 0:
        return 0.0
    if expected.dtype == np.bool_ or expected.dtype == np.uint8:  # pixels are held to a full scale of 255
        scale = 255.0 if expected.dtype == np.uint8 else 1.0
        return float(np.abs(expected.astype(np.float64) - found.astype(np.float64)).max()) / scale
    a, b = expected.astype(np.float64), found.astype(np.float64)
    if not np.isfinite(b).all():
        return float("inf")
    return float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-6))


def check_pictures(engines: Pipeline, graphs: Pipeline, prompt: str, seeds: range) -> Iterator[PictureCheck]:
    given = sample_prompt(graphs.manifest, prompt)
    for seed in seeds:
        expected = np.asarray(graphs.generate(given, seed=seed), np.float64)
        try:
            found = np.asarray(engines.generate(given, seed=seed), np.float64)
        except HartEdgeError as error:
            yield PictureCheck(seed, float("inf"), str(error))
            continue
        yield PictureCheck(seed, float(np.abs(found - expected).mean()), None)


def sample_prompt(manifest: Manifest, prompt: str) -> str | Context:
    """The prompt, or for a bundle without a text model a context of noise."""
    if manifest.tokenizer is not None:
        return prompt
    tokens = np.random.default_rng(0).standard_normal((manifest.context_tokens, manifest.context_dim))
    return Context(tokens.astype(np.float32), np.arange(manifest.context_tokens) < 8)
