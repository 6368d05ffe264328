"""The loop on the plan of the tiny bundle: the order of steps, lifetimes of buffers, and closing it early."""

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hart_edge.bundle.plan import Buffer, BufferKind
from hart_edge.bundle.verify import Bundle, open_bundle
from hart_edge.errors import EngineError
from hart_edge.runtime.loop import Array, Buffers, execute
from tests.bundle.make_bundle import make_bundle

ORDER = [
    "text_model",
    *("transformer", "tokens", "latent"),
    *("transformer", "tokens", "latent"),
    "decoder",
]
RESULTS = frozenset({"pixels", "finite"})
FILLED = (BufferKind.INPUT, BufferKind.SETTING, BufferKind.CONSTANT, BufferKind.NOISE)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(make_bundle(tmp_path_factory.mktemp("loop") / "tiny"))


class Recorder:
    """A runner that computes nothing: it fills every output with the number of its step."""

    def __init__(self, failing: int | None = None) -> None:
        self.graphs: list[str] = []
        self.alive: list[frozenset[str]] = []
        self.shapes: list[dict[str, tuple[int, ...]]] = []
        self.inputs: list[dict[str, Array]] = []
        self.buffers: Buffers
        self.names: list[str]
        self.failing = failing

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        step = len(self.graphs)
        self.graphs.append(graph)
        if step == self.failing:
            raise EngineError(f"{graph}: broken")
        self.alive.append(frozenset(name for name in self.names if is_alive(self.buffers, name)))
        self.shapes.append({name: array.shape for name, array in (*inputs.items(), *outputs.items())})
        self.inputs.append({name: array.copy() for name, array in inputs.items()})
        for array in outputs.values():
            array[...] = step


def is_alive(buffers: Buffers, name: str) -> bool:
    try:
        return isinstance(buffers[name], np.ndarray)
    except KeyError:
        return False


def start(bundle: Bundle, runner: Recorder, batch: int = 1, fill: Any = None) -> Buffers:
    def ones(name: str, buffer: Buffer) -> Array:
        sizes = {"B": batch, "2B": 2 * batch}
        return np.ones([sizes[size] if isinstance(size, str) else size for size in buffer.shape], buffer.dtype.value)

    plan = bundle.manifest.plan
    runner.names = list(plan.buffers)
    runner.buffers = Buffers(plan, batch, fill or ones, RESULTS)
    return runner.buffers


def test_steps_run_in_order_and_every_scale_is_reported(bundle: Bundle) -> None:
    runner = Recorder()
    buffers = start(bundle, runner)
    seen = [(scale, list(runner.graphs)) for scale in execute(bundle.manifest.plan, runner, buffers)]
    assert seen == [(0, ORDER[:4]), (1, ORDER[:7])]
    assert runner.graphs == ORDER
    assert (buffers["pixels"] == 7).all() and (buffers["finite"] == 1).all()  # step 7 wrote them


def test_a_buffer_lives_from_its_first_step_to_its_last(bundle: Bundle) -> None:
    runner = Recorder()
    plan = bundle.manifest.plan
    buffers = start(bundle, runner)
    for _ in execute(plan, runner, buffers):
        pass
    for step, alive in enumerate(runner.alive):
        assert alive == {name for name, each in plan.buffers.items() if each.first <= step <= each.last}, step
    assert {name for name in plan.buffers if is_alive(buffers, name)} == RESULTS


def test_memory_is_freed_after_the_last_step_of_a_buffer(bundle: Bundle) -> None:
    made: dict[str, weakref.ref[Array]] = {}

    def fill(name: str, buffer: Buffer) -> Array:
        sizes = {"B": 1, "2B": 2}
        array = np.ones([sizes[size] if isinstance(size, str) else size for size in buffer.shape], buffer.dtype.value)
        made[name] = weakref.ref(array)
        return array

    runner = Recorder()
    loop = execute(bundle.manifest.plan, runner, start(bundle, runner, fill=fill))
    assert next(loop) == 0
    assert made["input_ids"]() is None and made["uniform.0"]() is None  # last read in steps 0 and 2
    assert made["cfg_scale"]() is not None  # step 5 reads it again
    assert "uniform.1" not in made  # noise is made only when it is needed
    assert next(loop) == 1
    assert made["cfg_scale"]() is None and made["uniform.1"]() is None


def test_buffers_that_no_step_writes_are_filled_once(bundle: Bundle) -> None:
    asked: list[str] = []

    def fill(name: str, buffer: Buffer) -> Array:
        asked.append(name)
        return np.ones([1 if size == "B" else int(size) for size in buffer.shape], buffer.dtype.value)

    runner = Recorder()
    plan = bundle.manifest.plan
    list(execute(plan, runner, start(bundle, runner, fill=fill)))
    given = {name for name, each in plan.buffers.items() if each.kind in FILLED}
    assert sorted(asked) == sorted(given)
    assert (runner.inputs[3]["f_hat_before"] == 0).all()  # the zero buffer
    assert (runner.inputs[6]["f_hat_before"] == 3).all()  # what step 3 wrote
    assert runner.inputs[1]["past_key.0"].size == 0
    assert (runner.inputs[4]["past_key.0"] == 1).all()  # the rows that step 1 appended


@pytest.mark.parametrize("batch", [1, 3])
def test_shapes_follow_the_batch(bundle: Bundle, batch: int) -> None:
    runner = Recorder()
    list(execute(bundle.manifest.plan, runner, start(bundle, runner, batch)))
    assert runner.shapes[4] == {
        "context": (batch, 4, 8), "level": (1, 4, 8), "past_key.0": (1, 2 * batch, 32),
        "logits": (2 * batch, 4, 16), "key.0": (4, 2 * batch, 32),
    }  # fmt: skip
    assert runner.shapes[7] == {"f_hat": (batch, 4, 2, 2), "pixels": (batch, 32, 32, 3), "finite": (batch,)}


def test_closing_the_loop_early_runs_no_further_graph(bundle: Bundle) -> None:
    runner = Recorder()
    loop = execute(bundle.manifest.plan, runner, start(bundle, runner))
    assert next(loop) == 0
    loop.close()
    assert runner.graphs == ORDER[:4]
    assert next(loop, None) is None and runner.graphs == ORDER[:4]


def test_a_failing_step_ends_the_loop_with_its_error(bundle: Bundle) -> None:
    runner = Recorder(failing=5)
    loop = execute(bundle.manifest.plan, runner, start(bundle, runner))
    assert next(loop) == 0
    with pytest.raises(EngineError, match="tokens: broken"):
        next(loop)
    assert runner.graphs == ORDER[:6] and next(loop, None) is None


def test_a_real_bundle_has_few_buffers_alive_at_a_time(int8_bundle: Path) -> None:
    """The peak of all buffers that are alive at a step, against the sum of all buffers.

    Most of it is KV caches, which grow with the scale: those of two scales are alive at a time, and the last two have
    half of the sum.
    """
    plan = open_bundle(int8_bundle).manifest.plan
    sizes = {name: each.bytes_per_image for name, each in plan.buffers.items()}
    peak = max(
        sum(sizes[name] for name, each in plan.buffers.items() if each.first <= step <= each.last)
        for step in range(len(plan.steps))
    )
    assert peak < 0.6 * sum(sizes.values())
