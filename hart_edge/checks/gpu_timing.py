"""How long engines take on the device: per scale, per graph, per picture; and what memory they take.

In: a pipeline of engines. Out: a Timing, medians over pictures after the CUDA graphs have been captured.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np

from hart_edge.checks.gpu_parity import sample_prompt
from hart_edge.engines.tensorrt.runner import TensorRTRunner
from hart_edge.errors import InputError
from hart_edge.runtime.loop import Fill
from hart_edge.runtime.pipeline import Pipeline

WARM_UP = 3  # pictures: lazy set-up, capture, first launch


@dataclass(frozen=True)
class Timing:
    """Milliseconds. scales: (scale or None, ms) per group of steps; graphs: of all steps of a graph in one picture;
    picture: from prompt to pixels, the prompt a new one. memory: bytes on the device, engines with all else."""

    scales: tuple[tuple[int | None, float], ...]
    graphs: dict[str, float]
    picture: float
    pictures: int
    captured: tuple[int | None, ...]
    memory: int
    buffers: int
    activations: int


def measure(engines: Pipeline, free_before: int, prompt: str, pictures: int = 10) -> Timing:
    """free_before: bytes that were free on the device before the pipeline was loaded."""
    runner = runner_of(engines)
    given = sample_prompt(engines.manifest, prompt)
    for seed in range(WARM_UP):
        engines.forget()  # every picture is that of a new prompt
        engines.generate(given, seed=seed)
    whole = []
    for seed in range(pictures):
        engines.forget()
        begin = time.perf_counter()
        engines.generate(given, seed=seed)
        whole.append(1000 * (time.perf_counter() - begin))
    groups = runner.program.groups
    times: list[list[float]] = [[] for _ in groups]
    for seed in range(pictures):
        fill = engines.fill(given, seed)
        for number in range(len(groups)):
            begin = time.perf_counter()
            runner.run_group(number, fill)
            runner.cuda.synchronize()
            times[number].append(1000 * (time.perf_counter() - begin))
    memory = free_before - runner.cuda.free_memory()
    return Timing(
        tuple((group.scale, statistics.median(found)) for group, found in zip(groups, times, strict=True)),
        graph_times(runner, engines.fill(given, 0), pictures),
        statistics.median(whole),
        pictures,
        tuple(runner.captured()),
        memory,
        **runner.memory(),
    )


def graph_times(runner: TensorRTRunner, fill: Fill, pictures: int) -> dict[str, float]:
    """Per graph the sum over its steps of medians, each step waited for."""
    steps = runner.program.plan.steps
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(pictures):
        for group in runner.program.groups:
            runner.upload(group, fill)
            runner.cuda.synchronize()
            for index in range(group.first, group.last + 1):
                begin = time.perf_counter()
                runner.run_step(index)
                runner.cuda.synchronize()
                times[index].append(1000 * (time.perf_counter() - begin))
    found: dict[str, float] = {}
    for step, measured in zip(steps, times, strict=True):
        found[str(step.graph)] = found.get(str(step.graph), 0.0) + statistics.median(measured)
    return found


def slower_graphs(int8: Timing, fp16: Timing) -> dict[str, tuple[float, float]]:
    """Graphs that INT8 does not make faster: (INT8, FP16) milliseconds."""
    return {name: (ms, fp16.graphs[name]) for name, ms in int8.graphs.items() if ms > fp16.graphs.get(name, np.inf)}


def runner_of(engines: Pipeline) -> TensorRTRunner:
    if not isinstance(engines.runner, TensorRTRunner):
        target = engines.manifest.target.name
        raise InputError(f"--gpu-check: expected a bundle of TensorRT or TensorRT-RTX engines, found one for {target}")
    return engines.runner
