"""Draw pictures with one bundle, or with the reference, and take the time. Run in a process of its own: so is its peak.

In: a bundle, a checkpoint or a preset. Out: Measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from hart_edge.bundle.limits import peak_memory
from hart_edge.bundle.settings import Speed
from hart_edge.checks.bench.peak import measure_peak
from hart_edge.checks.gpu_parity import sample_prompt
from hart_edge.engines.loading import load
from hart_edge.runtime.loop import Array, Runner

SEED = 7


@dataclass(frozen=True)
class Measured:
    """Seconds. opened: until the first picture may begin; first: the first picture, with all that is loaded for it.

    pictures: of each further one, from prompt to pixels. steps: per picture the seconds of every step of the plan, in
    its order; of the reference there are two, the loop and the decoder. peak: most resident bytes of the process.
    again: of pictures whose prompt was drawn before. products: multiply-accumulates a second that matrix products
    reached right behind the pictures (peak.py).
    """

    opened: float
    first: float
    pictures: tuple[float, ...]
    steps: tuple[tuple[float, ...], ...]
    peak: int
    products: dict[str, float]
    again: tuple[float, ...] = ()


class Stopwatch:
    """A runner that takes the time of every call of another."""

    def __init__(self, runner: Runner) -> None:
        self.runner, self.seconds = runner, list[float]()

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        begin = time.perf_counter()
        self.runner.run(graph, inputs, outputs)
        self.seconds.append(time.perf_counter() - begin)


def measure_bundle(folder: Path, speed: Speed, prompt: str, pictures: int, threads: int | None) -> Measured:
    """A bundle that ONNX Runtime runs. Raises what load() and generate() raise."""
    begin = time.perf_counter()
    pipeline = load(folder, threads=threads)
    opened = time.perf_counter() - begin
    stopwatch = Stopwatch(pipeline.runner)
    pipeline.runner = stopwatch
    given = sample_prompt(pipeline.manifest, prompt)

    def draw() -> None:
        pipeline.forget()  # every picture is that of a new prompt
        pipeline.generate(given, seed=SEED, speed=speed)

    found = _draw(draw, stopwatch.seconds, opened, pictures)
    again = []
    for number in range(pictures):
        begin = time.perf_counter()
        pipeline.generate(given, seed=SEED + 1 + number, speed=speed)
        again.append(time.perf_counter() - begin)
    return replace(found, again=tuple(again), peak=peak_memory(), products=measure_peak(threads))


def measure_reference(source: Path | str, bf16: bool, prompt: str, pictures: int, threads: int | None) -> Measured:
    """source: a checkpoint's folder, or a preset's name. bf16: in bfloat16, as users of PyTorch do it: the blocks and
    the decoder cast once, all else by autocast. Needs torch. Raises CheckpointError, BuildError."""
    begin = time.perf_counter()
    import torch

    from hart_edge.export.stages.read import random_source, read_source
    from hart_edge.reference.draw import draw_latent

    if threads is not None:
        torch.set_num_threads(threads)
    found = random_source(source) if isinstance(source, str) else read_source(source)
    hart, text = found.model, found.graphs.get("text_model")
    (given, *_) = found.parity_inputs()
    if found.tokenizer is not None:
        given = {"input_ids": found.tokenizer.encode(prompt)}
    inputs = {name: torch.from_numpy(array) for name, array in given.items()}
    if bf16:
        for part in (*hart.transformer.blocks, hart.autoencoder.decoder):
            part.to(torch.bfloat16)
    seconds = list[float]()

    def draw() -> None:
        times = [time.perf_counter()]
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            context, mask = text(inputs["input_ids"]) if text else (inputs["context"], inputs["context_mask"])
            f_hat = draw_latent(hart, context, mask, [SEED])
            times.append(time.perf_counter())
            hart.decode(f_hat)
            times.append(time.perf_counter())
        seconds.extend(after - before for before, after in pairwise(times))

    return _draw(draw, seconds, time.perf_counter() - begin, pictures)


def _draw(draw: Callable[[], object], seconds: list[float], opened: float, pictures: int) -> Measured:
    """seconds: what draw() appends its steps to."""
    times, steps = [], []
    for _ in range(1 + pictures):
        seconds.clear()
        begin = time.perf_counter()
        draw()
        times.append(time.perf_counter() - begin)
        steps.append(tuple(seconds))
    return Measured(opened, times[0], tuple(times[1:]), tuple(steps[1:]), peak_memory(), {})
