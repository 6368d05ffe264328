"""A plan made ready for a device: groups of steps, places for every tensor, and what is uploaded when.

In: a plan and its components. Out: a Program that a runner executes without deciding anything. No engine library and
no device is touched here. An engine writes all of its outputs, so those that the plan does not name get places too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from hart_edge.bundle.arena import ARENA_ALIGNMENT, Span, peak, place
from hart_edge.bundle.kept import steps_of_text
from hart_edge.bundle.plan import Buffer, BufferKind, Component, Dtype, Plan, Step
from hart_edge.errors import BundleError


@dataclass(frozen=True)
class Place:
    """A tensor's place in the block. shape is concrete; size in bytes."""

    offset: int
    dtype: Dtype
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True)
class Group:
    """Steps that run without the host in between, `first` to `last`; what one CUDA graph holds.

    uploads: buffers that the host fills for every picture and that are wanted from here on.
    """

    scale: int | None
    first: int
    last: int
    uploads: tuple[str, ...]
    ends_scale: bool


@dataclass(frozen=True)
class Program:
    """places: of every buffer; unnamed: per step, of outputs that no buffer takes. resident: buffers that are filled
    once, with constants or zeros. spans: (first step, begin, end) of all that lies in the block. size: bytes of the
    block; least: what no placement could go below."""

    plan: Plan
    groups: tuple[Group, ...]
    places: Mapping[str, Place]
    unnamed: tuple[Mapping[str, Place], ...]
    resident: tuple[str, ...]
    spans: tuple[tuple[int, int, int], ...]
    size: int
    least: int

    def tensors(self, index: int) -> dict[str, Place]:
        """The places of a step's tensors, by the graph's names."""
        step = self.plan.steps[index]
        named = {tensor: self.places[name] for tensor, name in (*step.inputs.items(), *step.outputs.items())}
        return named | dict(self.unnamed[index])

    def written(self, index: int) -> int:
        """Bytes of the block that hold anything once a step has run: a system gives memory to no others. Caches count
        whole from their first row on."""
        total = reached = 0
        for begin, end in sorted((begin, end) for first, begin, end in self.spans if first <= index):
            total += max(0, end - max(begin, reached))
            reached = max(reached, end)
        return total


def read_by_caller(plan: Plan) -> frozenset[str]:
    """What a caller reads after its step: the picture, and every scale's f_hat for previews."""
    ends = {f"f_hat.{step.scale}" for step in plan.steps if step.ends_scale}
    return frozenset({"pixels", "finite", *ends}) & plan.buffers.keys()


def make_program(plan: Plan, components: Sequence[Component], batch: int = 1) -> Program:
    """The program of a plan for `batch` images at once. Raises BundleError where an output's size is not known."""
    groups = tuple(split(plan))
    end, results = len(plan.steps) - 1, read_by_caller(plan)
    starts = {name: group.first for group in groups for name in group.uploads}
    shapes = {name: buffer_shape(buffer, batch) for name, buffer in plan.buffers.items()}
    resident = tuple(name for name, buffer in plan.buffers.items() if is_resident(buffer))
    spans, tensors = [], {}
    for name, buffer in plan.buffers.items():
        if buffer.kind is BufferKind.ROWS:
            continue  # they lie in their cache
        first = 0 if name in resident else starts.get(name, buffer.first)
        last = end if name in resident or name in results else buffer.last
        tensors[name] = (buffer.dtype, shapes[name])
        spans.append(Span(name, size_of(*tensors[name]), first, last))
    unnamed: list[dict[str, str]] = []
    for index, step in enumerate(plan.steps):
        unnamed.append({})
        for name, dtype, shape in unnamed_outputs(step, components, plan, batch):
            # No buffer has a line break in its name.
            key = unnamed[-1][name] = f"{index}\n{of_any_block(name)} {dtype} {shape}"
            if key not in tensors:
                tensors[key] = (dtype, shape)
                spans.append(Span(key, size_of(dtype, shape), index, index))
    offsets, size = place(spans)
    places = {name: Place(offsets[name], *tensors[name], size_of(*tensors[name])) for name in tensors}
    for name, buffer in plan.buffers.items():
        if buffer.kind is BufferKind.ROWS:
            places[name] = rows_place(buffer, shapes[name], places[buffer.cache or ""])
    return Program(
        plan,
        groups,
        {name: places[name] for name in plan.buffers},
        tuple({name: places[key] for name, key in step_keys.items()} for step_keys in unnamed),
        resident,
        tuple((span.first, offsets[span.name], offsets[span.name] + span.size) for span in spans),
        size,
        peak(spans),
    )


def is_resident(buffer: Buffer) -> bool:
    return buffer.kind in (BufferKind.CONSTANT, BufferKind.ZERO)


def split(plan: Plan) -> Iterator[Group]:
    """Steps in groups: a scale's steps up to the end of the scale, or what stands before, between and behind. The text
    model's step is a group, which a runner that knows the prompt leaves out (kept.py)."""
    seen: set[str] = set()
    first, text = 0, steps_of_text(plan)
    for index, step in enumerate(plan.steps):
        last = index in (text - 1, len(plan.steps) - 1)
        if not (last or step.ends_scale or plan.steps[index + 1].scale != step.scale):
            continue
        names = dict.fromkeys(name for each in plan.steps[first : index + 1] for name in each.inputs.values())
        uploads = tuple(name for name in names if name not in seen and is_upload(plan.buffers[name]))
        seen.update(uploads)
        yield Group(step.scale, first, index, uploads, step.ends_scale)
        first = index + 1


def is_upload(buffer: Buffer) -> bool:
    return buffer.kind in (BufferKind.INPUT, BufferKind.SETTING, BufferKind.NOISE)


def rows_place(buffer: Buffer, shape: tuple[int, ...], cache: Place) -> Place:
    """Where a range of a cache's rows lies."""
    row = size_of(cache.dtype, shape[1:])
    return Place(cache.offset + row * (buffer.start or 0), buffer.dtype, shape, size_of(buffer.dtype, shape))


def buffer_shape(buffer: Buffer, batch: int) -> tuple[int, ...]:
    sizes = {"B": batch, "2B": 2 * batch}
    return tuple(sizes[size] if isinstance(size, str) else size for size in buffer.shape)


def size_of(dtype: Dtype, shape: Sequence[int]) -> int:
    return dtype.itemsize * math.prod(shape)


def unaligned_rows(plan: Plan) -> str:
    """The first rows of a cache that do not begin at a multiple of ARENA_ALIGNMENT at one image; "" where all do."""
    for name, buffer in plan.buffers.items():
        if buffer.kind is BufferKind.ROWS and (buffer.start or 0) * row_size(buffer) % ARENA_ALIGNMENT:
            return name
    return ""


def row_size(buffer: Buffer) -> int:
    """Bytes of a row at one image."""
    return size_of(buffer.dtype, buffer_shape(buffer, 1)[1:])


def of_any_block(output: str) -> str:
    """The name of an output without the number of its block, key.3 -> key. Where nobody reads what blocks leave, as
    after the last scale, one place serves all of them: a block begins with what the one before it made of its own."""
    name, _, number = output.rpartition(".")
    return name if number.isdigit() else output


def unnamed_outputs(
    step: Step, components: Sequence[Component], plan: Plan, batch: int
) -> Iterator[tuple[str, Dtype, tuple[int, ...]]]:
    """(name, dtype, shape) of the outputs of a step's graph that the plan has no buffer for."""
    component = next(each for each in components if each.name == step.graph)
    extents = symbols(step, component, plan, batch)
    for tensor in component.outputs:
        if tensor.name not in step.outputs:
            shape = tuple(evaluate(entry, extents, step.graph, tensor.name) for entry in tensor.shape)
            yield tensor.name, tensor.dtype, shape


def symbols(step: Step, component: Component, plan: Plan, batch: int) -> dict[str, int]:
    """What a graph's symbols stand for in a step."""
    extents = {"B": batch, "2B": 2 * batch}
    buffers = {**step.inputs, **step.outputs}
    for tensor in (*component.inputs, *component.outputs):
        if tensor.name in buffers:
            shape = buffer_shape(plan.buffers[buffers[tensor.name]], batch)
            extents.update({entry: size for entry, size in zip(tensor.shape, shape, strict=True)
                            if isinstance(entry, str)})  # fmt: skip
    return extents


def evaluate(entry: int | str, extents: Mapping[str, int], graph: str, tensor: str) -> int:
    """An entry of a shape, an integer or a symbol, as a number."""
    found = entry if isinstance(entry, int) else extents.get(entry)
    if found is None:
        raise BundleError(
            f"{graph}: expected symbols of its other tensors in the shape of {tensor}, found {entry!r}; an engine "
            "writes all of its outputs, so their sizes must follow from the plan; rebuild the bundle"
        )
    return found
