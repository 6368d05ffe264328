"""How much memory a bundle takes while it runs, and its engines while they are built: arithmetic on the manifest.

In: the manifest, and per step the activations that a builder reported or export/activations.py computed.
Out: a Forecast per component and scale, and what to change where it does not fit. docs/memory.md has the factors'
source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby

from hart_edge.bundle.kept import memory_of_prompts
from hart_edge.bundle.limits import Memory, process_memory
from hart_edge.bundle.manifest import Manifest
from hart_edge.bundle.plan import BufferKind, Component, Plan, Precision
from hart_edge.bundle.program import Group, Program, make_program
from hart_edge.bundle.settings import Speed
from hart_edge.errors import BuildError, OutOfMemoryError
from hart_edge.units import binary_size

Activations = Mapping[tuple[str, int | None], int]  # (graph, scale): bytes between the nodes


@dataclass(frozen=True)
class MemoryRules:
    """How an engine library takes memory on a target; its entry in the registry brings them.

    process: bytes of interpreter, libraries and contexts. node: bytes that a node takes beside its weights.

    opening, activations: bytes for each byte of the weights of a graph while it is opened, and of activations. Weights
    in a file beside their graph are mapped, and not copied while it is opened.

    paged: whether the block of buffers takes memory only as it is written to.
    """

    process: int
    node: int
    opening: float
    activations: float
    retained: bool  # a graph retains, for the scales after it, what it allocated for one
    shared: bool  # one block of activations serves all graphs; else each keeps its own
    measured: bool
    keeps_first_scales: bool  # of prompts, beside their contexts (bundle/kept.py)
    paged: bool = False


BUILDER_PROCESS = 400_000_000  # bytes: the builder's process, before it has a graph
MARGIN = 0.15  # of a forecast, by which what was measured may exceed it (tests/cli/test_plan.py)
BUILD_COPIES = 2  # of a component's weights: the parsed network's, and the engine that is being written


@dataclass(frozen=True)
class Constants:
    """weights: bytes of a graph's while it runs, or of an engine; nodes: how many the graph has, 0 for an engine."""

    weights: int
    nodes: int = 0


@dataclass(frozen=True)
class ComponentMemory:
    """weights: bytes while it is open, nodes included; activations: the most of any scale, which `scale` names."""

    name: str
    weights: int
    activations: int
    scale: int | None
    build: int


@dataclass(frozen=True)
class ScaleMemory:
    """The worst moment of a scale, or of the steps before or behind all scales. weights: of all open graphs, and of one
    that is being opened; cache: keys and values; buffers: of the plan's block, which with low_memory is a new one for
    every picture."""

    scale: int | None
    weights: int
    activations: int
    cache: int
    buffers: int
    total: int


@dataclass(frozen=True)
class Forecast:
    """prompts: bytes of what is kept of earlier prompts; peak: at the worst moment of a picture; build: at the worst
    moment of building the engines here."""

    components: tuple[ComponentMemory, ...]
    scales: tuple[ScaleMemory, ...]
    process: int
    buffers: int
    cache: int
    prompts: int
    peak: int
    build: int
    measured: bool


def forecast(
    manifest: Manifest,
    rules: MemoryRules,
    constants: Mapping[str, Constants],
    activations: Activations,
    *,
    low_memory: bool,
    workspace: int = 0,
    speed: Speed = Speed.EXACT,
) -> Forecast:
    """rules: of the bundle's target. constants: of every component. activations: of the speed's steps. workspace: bytes
    that a builder may use."""
    plan, plans = manifest.plans[speed], tuple(manifest.plans.values())
    program = make_program(plan, manifest.components)
    mapped = {str(each.name) for each in manifest.components if f"{each.file}.data" in manifest.files}
    resident = {name: each.weights + each.nodes * rules.node for name, each in constants.items()}
    opening = {
        name: resident[name] if name in mapped else max(resident[name], int(each.weights * rules.opening))
        for name, each in constants.items()
    }
    factor = 1.0 if low_memory else rules.activations
    allocated = {key: int(size * factor) for key, size in activations.items()}
    used = [str(name) for name in dict.fromkeys(step.graph for step in plan.steps)]
    kept = memory_of_prompts(plans, first_scales=rules.keeps_first_scales and not low_memory)
    scales = tuple(
        _scale(program, [*groups], resident, opening, allocated, rules, low_memory, kept)
        for _, groups in groupby(program.groups, lambda group: group.scale)
    )
    components = tuple(
        _component(each, resident[each.name], allocated, workspace) for each in manifest.components if each.name in used
    )
    return Forecast(
        components,
        scales,
        rules.process,
        program.size,
        cache_peak(plan),
        kept,
        max(each.total for each in scales),
        max(build_memory(each, workspace) for each in manifest.components),
        rules.measured,
    )


def _component(component: Component, resident: int, allocated: Activations, workspace: int) -> ComponentMemory:
    most, scale = max(((size, scale) for (name, scale), size in allocated.items() if name == component.name),
                      key=lambda pair: pair[0])  # fmt: skip
    return ComponentMemory(str(component.name), resident, most, scale, build_memory(component, workspace))


def _scale(
    program: Program,
    groups: Sequence[Group],
    resident: Mapping[str, int],
    opening: Mapping[str, int],
    allocated: Activations,
    rules: MemoryRules,
    low_memory: bool,
    kept: int,
) -> ScaleMemory:
    """The worst moment of groups of one scale, or before or behind them, each graph being opened before its first
    step."""
    plan = program.plan
    inside = range(groups[0].first, groups[-1].last + 1)
    at_work = {index: allocated[str(plan.steps[index].graph), plan.steps[index].scale] for index in inside}
    if rules.retained and not low_memory:
        every = [max(size for (name, _), size in allocated.items() if name == graph) for graph in _graphs(plan)]
        at_work = dict.fromkeys(inside, max(every) if rules.shared else sum(every))
    moments = []  # (weights, activations, buffers)
    for index in inside:
        graph = str(plan.steps[index].graph)
        # As it is in a second picture, unless every graph is released after its last step.
        open_then = [name for name in _graphs(plan) if not low_memory or _alive(plan, name, index)]
        buffers = program.written(index) if rules.paged and low_memory else program.size
        moments.append((sum(resident[name] for name in open_then), at_work[index], buffers))
        if _first(plan, graph) == index:
            others = sum(resident[name] for name in open_then if _first(plan, name) < index)
            moments.append((others + opening[graph], 0, buffers))
    weights, activations, buffers = max(moments, key=sum)
    cache = max(cache_bytes(plan, index) for index in inside)
    total = rules.process + weights + activations + buffers + kept
    return ScaleMemory(groups[0].scale, weights, activations, cache, buffers, total)


def _graphs(plan: Plan) -> list[str]:
    return [str(name) for name in dict.fromkeys(step.graph for step in plan.steps)]


def _first(plan: Plan, graph: str) -> int:
    return next(number for number, step in enumerate(plan.steps) if step.graph == graph)


def _alive(plan: Plan, graph: str, index: int) -> bool:
    last = max(number for number, step in enumerate(plan.steps) if step.graph == graph)
    return _first(plan, graph) <= index <= last


def cache_bytes(plan: Plan, index: int) -> int:
    """Bytes of keys and values at a step: of the caches, which are there whole from their first row on."""
    caches = (buffer for buffer in plan.buffers.values() if buffer.kind is BufferKind.CACHE)
    return sum(cache.bytes_per_image for cache in caches if cache.first <= index <= cache.last)


def cache_peak(plan: Plan) -> int:
    """The most of any step: it is reached where a cache begins."""
    begins = {buffer.first for buffer in plan.buffers.values() if buffer.kind is BufferKind.CACHE}
    return max((cache_bytes(plan, index) for index in begins), default=0)


def build_memory(component: Component, workspace: int) -> int:
    """Bytes at the worst moment of building a component's engine, each in a process of its own."""
    return BUILDER_PROCESS + BUILD_COPIES * component.bytes + workspace


def require_build_memory(components: Sequence[Component], available: int | None, workspace: int = 0) -> None:
    """Raise BuildError before a build begins that cannot fit; name the component and the remedy.

    available: bytes, None where the system does not say, and then nothing is refused.
    """
    largest = max(components, key=lambda component: component.bytes)
    needed, name = build_memory(largest, workspace), largest.name
    if available is not None and needed > available:
        raise BuildError(
            f"{name}: building its engine takes {binary_size(needed)}, found {binary_size(available)} free; "
            "close other programs, lower the workspace, build at a lower --precision, or build on a larger machine of "
            "the same architecture"
        )


def least_memory(manifest: Manifest, rules: MemoryRules, *, low_memory: bool) -> int:
    """Bytes that a picture takes at least: the forecast without activations, which the manifest does not tell."""
    constants = {str(each.name): Constants(each.bytes) for each in manifest.components}
    none = {(str(step.graph), step.scale): 0 for step in manifest.plan.steps}
    return forecast(manifest, rules, constants, none, low_memory=low_memory).peak


def shortage(
    reason: str,
    manifest: Manifest | None = None,
    rules: MemoryRules | None = None,
    *,
    low_memory: bool = False,
    memory: Callable[[], Memory] = process_memory,
) -> OutOfMemoryError:
    """The error for memory that was refused. reason: what was said by whoever refused it; manifest, rules: where known,
    and then what the bundle needs is told."""
    had, needed = memory(), ""
    found = "no more" if had.available is None else f"{binary_size(had.available)} free"
    if had.limit is not None and had.total is not None:
        found += f" under {had.limit} of {binary_size(had.total)}"
    if manifest is not None and rules is not None:
        needed = f": expected {binary_size(least_memory(manifest, rules, low_memory=low_memory))} or more in all"
    lower = "" if low_memory else "load with low_memory=True (hart-edge generate --low-memory), "
    return OutOfMemoryError(
        f"not enough memory{needed}, found {found} ({reason or 'no reason given'}); {lower}close other programs"
        f"{'' if had.limit is None else ', raise the limit'}, or see what would fit: hart-edge plan BUNDLE",
        reason,
    )


@contextmanager
def shortage_told(
    manifest: Manifest | None = None, rules: MemoryRules | None = None, *, low_memory: bool
) -> Iterator[None]:
    """Around the loading or drawing of a bundle: memory that is refused is told with what the bundle needs."""
    try:
        yield
    except OutOfMemoryError as error:
        if not error.reason:
            raise  # a GPU's is told already
        raise shortage(error.reason, manifest, rules, low_memory=low_memory) from error
    except MemoryError as error:
        raise shortage(str(error), manifest, rules, low_memory=low_memory) from error


def advice(manifest: Manifest, needed: Forecast, low: Forecast, memory: int) -> list[str]:
    """What to change where a bundle does not fit: only what this product can do, with what it brings."""
    if needed.peak <= memory:
        return []
    found = []
    if low.peak < needed.peak:
        found.append(
            "generate --low-memory: every graph is released after its last step, the text model before the first "
            f"scale; peak {binary_size(low.peak)}, {fits(low.peak, memory)}"
        )
    if manifest.precision is not Precision.INT8:
        saved = sum(each.weights for each in low.components) * (1 - INT8_SHARE[manifest.precision])
        smaller = int(low.peak - saved) if low.peak - saved > low.process else low.process
        found.append(
            f"build at --precision int8: weights take about {INT8_SHARE[manifest.precision]:.0%} of these; with "
            f"--low-memory a peak of about {binary_size(smaller)}, {fits(smaller, memory)}"
        )
    least = low.process + low.buffers
    if least > memory:
        found.append(
            f"a checkpoint of smaller pictures: buffers and libraries alone take {binary_size(least)} at "
            f"{manifest.image_size} x {manifest.image_size} pixels"
        )
    least = min(low.peak, needed.peak)
    return found or [f"a device with {binary_size(least)} free: nothing in this bundle can be left out"]


INT8_SHARE = {Precision.FP32: 0.25, Precision.FP16: 0.5}


def fits(peak: int, memory: int) -> str:
    if is_close(peak, memory):
        return f"which fits with less than {100 * MARGIN:.0f} % to spare"
    return "which fits" if peak <= memory else "which does not fit either"


def is_close(peak: int, memory: int) -> bool:
    """Whether a forecast fits by less than it may be wrong."""
    return peak <= memory < peak * (1 + MARGIN)
