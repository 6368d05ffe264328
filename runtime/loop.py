"""The loop: execute a bundle's plan, step by step, handing buffers from one graph to the next.

In: a plan and a Fill, which makes the buffers that no step writes. Out: a scale number after every finished scale; the
results are in the buffers. Every runner, in every language, executes the same plan (docs/bundle.md): HostPass with the
arrays of this file, a runner on a device with memory of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.arena import aligned
from hart_edge.bundle.kept import steps_of_text
from hart_edge.bundle.plan import Buffer, BufferKind, Plan, Step, touched
from hart_edge.bundle.program import buffer_shape, size_of
from hart_edge.runtime.spare_block import Block, SpareBlock

Array = NDArray[Any]
Fill = Callable[[str, Buffer], Array]


class Runner(Protocol):
    """Runs graphs of one bundle in one engine library."""

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Compute `outputs` in place; arrays are C-contiguous. Raises EngineError."""


class Pass(Protocol):
    """One picture that is being drawn."""

    def scales(self) -> Iterator[int]:
        """Draw; yields each scale when its f_hat can be read. Closing the iterator stops it. Raises EngineError."""

    def read(self, name: str) -> Array:
        """What a buffer holds now: the picture when scales() has ended, f_hat.{scale} when that scale was yielded."""


@runtime_checkable
class DeviceRunner(Protocol):
    """A runner whose buffers are not arrays of this process, so that it draws a picture whole."""

    def begin(self, fill: Fill, known: Known | None = None, wanted: frozenset[str] = frozenset()) -> Pass:
        """known: of the text model's step, which then need not run; wanted: that step's buffers, which can be read
        until the end."""


@runtime_checkable
class Unloader(Protocol):
    """A runner that can unload a graph and load it again."""

    def unload(self, graph: str) -> None: ...


class Buffers:
    """The arrays behind a plan's buffers, each alive from its first step to its last."""

    def __init__(
        self, plan: Plan, batch: int, fill: Fill, keep: frozenset[str], spare: SpareBlock | None = None
    ) -> None:
        """fill: makes the array of a buffer that no step writes; keep: buffers that outlive their last step; spare: has
        the memory of caches, to which close() returns it; None for memory that goes with the last array."""
        self._plan, self._batch, self._fill, self._keep = plan, batch, fill, keep
        self._spare = spare
        self._block: Block | None = None  # of the spare
        self._arrays: dict[str, Array] = {}

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def source(self, name: str) -> Array:
        """A buffer that a step reads."""
        if name not in self._arrays:
            buffer = self._plan.buffers[name]
            if buffer.kind is BufferKind.ROWS:
                self._arrays[name] = self._rows(buffer)
            elif buffer.kind is BufferKind.ZERO:
                self._arrays[name] = np.zeros(buffer_shape(buffer, self._batch), buffer.dtype.value)
            else:
                self._arrays[name] = self._fill(name, buffer)
        return self._arrays[name]

    def target(self, name: str) -> Array:
        """A buffer that a step writes."""
        buffer = self._plan.buffers[name]
        if buffer.kind is BufferKind.ROWS:
            self._arrays[name] = self._rows(buffer)
        else:
            self._arrays[name] = np.empty(buffer_shape(buffer, self._batch), buffer.dtype.value)
        return self._arrays[name]

    def _rows(self, buffer: Buffer) -> Array:
        """A view of a range of a cache's rows."""
        assert buffer.cache is not None  # the manifest's reader has checked it
        if buffer.cache not in self._arrays:
            self._allocate_caches()
        return self._arrays[buffer.cache][buffer.start : buffer.end]

    def _allocate_caches(self) -> None:
        """All in one block: as large as it is, it goes back to the system when the last cache is released."""
        caches = {name: each for name, each in self._plan.buffers.items() if each.kind is BufferKind.CACHE}
        shapes = {name: buffer_shape(each, self._batch) for name, each in caches.items()}
        sizes = {name: size_of(each.dtype, shapes[name]) for name, each in caches.items()}
        whole = sum(map(aligned, sizes.values()))
        if self._spare is None:
            block = np.empty(whole, np.uint8)
        else:
            block = self._block = self._spare.take(whole)
        begin = 0
        for name, each in caches.items():
            self._arrays[name] = block[begin : begin + sizes[name]].view(each.dtype.value).reshape(shapes[name])
            begin += aligned(sizes[name])

    def give(self, name: str, array: Array) -> None:
        """A buffer whose step need not run. No step writes it, so the array may be the caller's; rows are copied."""
        if self._plan.buffers[name].kind is BufferKind.ROWS:
            self.target(name)[...] = array
        else:
            self._arrays[name] = array

    def close(self) -> None:
        """Leave the memory of caches for the next picture. Rows can no longer be read."""
        block, self._block = self._block, None
        if self._spare is not None and block is not None:
            kinds = {name: self._plan.buffers[name].kind for name in self._arrays}
            for name, kind in kinds.items():
                if kind in (BufferKind.CACHE, BufferKind.ROWS):
                    del self._arrays[name]
            self._spare.give_back(block)

    def release(self, index: int, step: Step) -> None:
        """Drop the arrays that no later step touches."""
        for name in touched(step, self._plan.buffers) - self._keep:
            if self._plan.buffers[name].last == index:
                del self._arrays[name]


class Known(NamedTuple):
    """values: the buffers that the first `steps` steps of a plan leave for later ones."""

    values: Mapping[str, Array]
    steps: int


def execute(
    plan: Plan,
    runner: Runner,
    buffers: Buffers,
    done: Callable[[int], None] | None = None,
    known: Known | None = None,
) -> Iterator[int]:
    """Run every step; yields the number of each scale as it is done, when its f_hat can be decoded.

    The decoder is the last step, so the picture is there when the iteration ends. Closing the iterator stops it.
    done: called with the index of every step that has run; known: of the first steps, which then do not run.
    """
    begin = 0
    if known is not None:
        begin = known.steps
        for name, array in known.values.items():
            buffers.give(name, array)
    for index, step in enumerate(plan.steps[begin:], begin):
        inputs = {tensor: buffers.source(name) for tensor, name in step.inputs.items()}
        outputs = {tensor: buffers.target(name) for tensor, name in step.outputs.items()}
        runner.run(step.graph, inputs, outputs)
        if done is not None:
            done(index)
        if step.ends_scale:
            assert step.scale is not None  # the manifest's reader has checked it
            yield step.scale
        buffers.release(index, step)


def read_prompt(plan: Plan, runner: Runner, fill: Fill) -> Known:
    """Run the text model's step alone, where there is one: what it leaves for the others."""
    made: dict[str, Array] = {}
    steps = steps_of_text(plan)
    for step in plan.steps[:steps]:
        inputs = {tensor: fill(name, plan.buffers[name]) for tensor, name in step.inputs.items()}
        for name in step.outputs.values():
            made[name] = np.empty(buffer_shape(plan.buffers[name], 1), plan.buffers[name].dtype.value)
        runner.run(step.graph, inputs, {tensor: made[name] for tensor, name in step.outputs.items()})
    return Known(made, steps)


class HostPass:
    """A picture drawn by a Runner, in arrays of this process."""

    def __init__(
        self,
        plan: Plan,
        runner: Runner,
        fill: Fill,
        *,
        low_memory: bool = False,
        known: Known | None = None,
        wanted: frozenset[str] = frozenset(),
        spare: SpareBlock | None = None,
    ) -> None:
        """low_memory: unload every graph after its last step, where the runner can; known: of the first steps, which
        need not run; wanted: buffers that can be read until the end, rows until the last scale; spare: has memory for
        caches."""
        self._plan, self._runner, self._known = plan, runner, known
        self._buffers = Buffers(plan, 1, fill, frozenset({"pixels", "finite"}) | wanted, spare)
        self._unloader = runner if low_memory and isinstance(runner, Unloader) else None

    def scales(self) -> Iterator[int]:
        try:
            yield from execute(self._plan, self._runner, self._buffers, self._done, self._known)
        finally:
            self._buffers.close()

    def read(self, name: str) -> Array:
        return self._buffers[name]

    def _done(self, index: int) -> None:
        graph = self._plan.steps[index].graph
        if self._unloader is not None and all(step.graph != graph for step in self._plan.steps[index + 1 :]):
            self._unloader.unload(graph)
