"""What a runner executes: the graphs, the named buffers between them, and the steps in their order.

The dataclasses are the JSON objects of docs/bundle.md. manifest.py reads them, and plan_check.py compares a plan with
its graphs, so that a runner can trust every name, shape and lifetime in it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from hart_edge.bundle import settings
from hart_edge.bundle.fields import Length, choice, integer, number, read, refuse, relative_path, show, text


class Precision(StrEnum):
    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"  # of a text model alone


WHOLE = tuple(each for each in Precision if each is not Precision.INT4)  # what a whole bundle may be


class Dtype(StrEnum):
    """Element types of buffers and constants, under numpy's names."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT64 = "int64"
    INT32 = "int32"
    UINT8 = "uint8"
    INT8 = "int8"
    BOOL = "bool"

    @property
    def itemsize(self) -> int:
        return {"float32": 4, "float16": 2, "int64": 8, "int32": 4}.get(self.value, 1)


class BufferKind(StrEnum):
    INPUT = "input"
    SETTING = "setting"
    CONSTANT = "constant"
    ZERO = "zero"
    NOISE = "noise"
    VALUE = "value"
    CACHE = "cache"
    ROWS = "rows"


class Distribution(StrEnum):
    UNIFORM = "uniform"
    NORMAL = "normal"


class ComponentName(StrEnum):
    TEXT_MODEL = "text_model"
    CONTEXT = "context"
    TRANSFORMER = "transformer"
    TOKENS = "tokens"
    LATENT = "latent"
    EMBED = "embed"
    SELECT = "select"
    RESIDUAL = "residual"
    DECODER = "decoder"
    ENCODER = "encoder"


MOST_BYTES = 2**40
FURTHER_KEYS: Mapping[str, tuple[str, ...]] = {
    BufferKind.SETTING: ("setting", "scale"),
    BufferKind.CONSTANT: ("constant",),
    BufferKind.NOISE: ("distribution", "purpose", "scale", "draw"),
    BufferKind.ROWS: ("cache", "start"),
}


def extent(value: object, where: str) -> int | str:
    """One entry of a buffer's shape: an integer, "B" (images at once) or "2B" (both branches of guidance)."""
    if isinstance(value, str) and value in ("B", "2B"):
        return value
    if type(value) is not int or not 0 <= value <= 2**20:
        refuse(where, 'an integer from 0 to 1048576, "B" or "2B"', show(value))
    return value


def dimension(value: object, where: str) -> int | str:
    """One entry of a graph tensor's shape: an integer, or any symbol of printable ASCII."""
    if isinstance(value, str) and 1 <= len(value) <= 64 and value.isascii() and value.isprintable():
        return value
    if type(value) is not int or not 0 <= value <= 2**20:
        refuse(where, "an integer from 0 to 1048576 or a symbol", show(value))
    return value


read_name = text(200, r"[\x20-\x7e]+", "a name of printable ASCII,")

Name = Annotated[str, read_name]
Path = Annotated[str, relative_path]
Line = Annotated[str, text(1000)]
Scale = Annotated[int, integer(0, 63)]
Bytes = Annotated[int, integer(0, MOST_BYTES)]
StepIndex = Annotated[int, integer(0, 9_999)]


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph."""

    name: Name
    dtype: Dtype
    shape: Annotated[tuple[Annotated[int | str, dimension], ...], Length(0, 8)]


@dataclass(frozen=True)
class Engine:
    """profiles: per optimisation profile, in the engine's order, the scale whose steps it serves; None: steps outside
    the loop over scales."""

    profiles: Annotated[tuple[Scale | None, ...], Length(1, 65)]


@dataclass(frozen=True)
class Component:
    """A graph and what became of it at build time: a file that ends with .onnx, or an engine made from one.

    scheme: how weights and activations are held; reason: why this one, "" where there was nothing to decide.
    float_products: weights that are multiplied in floating point although the scheme would multiply them in INT8.
    """

    name: ComponentName
    file: Path
    precision: Precision
    scheme: Line
    parameters: Bytes
    bytes: Bytes
    max_error: Annotated[float, number(0, 1e30)]
    worst_tensor: Line
    inputs: Annotated[tuple[TensorSpec, ...], Length(0, 1000)]
    outputs: Annotated[tuple[TensorSpec, ...], Length(1, 1000)]
    reason: Annotated[str, text(10_000)]
    float_products: Annotated[tuple[Line, ...], Length(0, 10_000)]
    engine: Annotated[Engine | None, functools.partial(read, Engine)] = None  # None is for Python only, as in Buffer

    @classmethod
    def keys_for(cls, given: Mapping[str, object]) -> frozenset[str]:
        """The keys that a component has in the manifest: `engine` belongs to files that end with .engine."""
        file = given.get("file")
        is_engine = isinstance(file, str) and file.endswith(".engine")
        return frozenset(cls.__dataclass_fields__) - (frozenset() if is_engine else {"engine"})


@dataclass(frozen=True)
class Constant:
    """A tensor in constants.bin, little-endian, C order."""

    dtype: Dtype
    shape: Annotated[tuple[Annotated[int, integer(0, 2**20)], ...], Length(0, 8)]
    offset: Bytes

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Buffer:
    """A named tensor that connects steps. The keys after `last` belong to some kinds, and are else None.

    A cache is memory that grows along axis 0. Steps name rows of it: a range, `start` and the extent of axis 0, which
    they append or read where it lies.
    """

    kind: BufferKind
    dtype: Dtype
    shape: Annotated[tuple[Annotated[int | str, extent], ...], Length(0, 8)]
    bytes_per_image: Bytes
    first: StepIndex
    last: StepIndex
    setting: Annotated[str | None, settings.read_name] = None  # None is for Python only, not null in JSON
    scale: Scale | None = None
    constant: Annotated[str | None, read_name] = None
    distribution: Annotated[Distribution | None, choice(Distribution)] = None
    purpose: Annotated[int | None, integer(0, 1)] = None
    draw: Annotated[int | None, integer(0, 1000)] = None  # of RESIDUAL: the first that the buffer holds
    cache: Annotated[str | None, read_name] = None
    start: Annotated[int | None, integer(0, 2**20)] = None

    @classmethod
    def keys_for(cls, given: Mapping[str, object]) -> frozenset[str]:
        """The keys that a buffer of this kind has in the manifest; a noise may lack its draw, then the first."""
        kind = given.get("kind")
        further = FURTHER_KEYS.get(kind, ()) if isinstance(kind, str) else ()
        further = tuple(key for key in further if key != "draw" or given.get(key) is not None)
        return frozenset({"kind", "dtype", "shape", "bytes_per_image", "first", "last", *further})

    @property
    def end(self) -> int:
        """Of rows and caches: the row behind the last; that axis 0 is a number is checked by plan_check.py."""
        return (self.start or 0) + int(self.shape[0])


@dataclass(frozen=True)
class Step:
    """One run of a graph. `scale` is None outside the loop over scales."""

    graph: ComponentName
    scale: Scale | None
    inputs: dict[Name, Name]
    outputs: dict[Name, Name]
    ends_scale: bool


@dataclass(frozen=True)
class Plan:
    buffers: Annotated[dict[Name, Buffer], Length(1, 100_000)]
    steps: Annotated[tuple[Step, ...], Length(1, 10_000)]


def tokens_of(plan: Plan, patch_nums: Sequence[int]) -> tuple[int, ...]:
    """How many tokens of each scale are computed: fewer than it has where a speed leaves some out, which shows in the
    noise that chooses their codes."""
    noise = [each for each in plan.buffers.values() if each.kind is BufferKind.NOISE and each.purpose == 0]
    drawn = {each.scale: int(each.shape[1]) for each in noise}  # manifest.py checks the shape
    return tuple(drawn.get(scale, side * side) for scale, side in enumerate(patch_nums))


def bytes_per_image(dtype: Dtype, shape: Sequence[int | str]) -> int:
    """Size of a buffer at B = 1."""
    images = {"B": 1, "2B": 2}
    return dtype.itemsize * math.prod(images[entry] if isinstance(entry, str) else entry for entry in shape)


def touched(step: Step, buffers: Mapping[str, Buffer]) -> set[str]:
    """The buffers that a step reads or writes, and the caches that its rows lie in."""
    names = {*step.inputs.values(), *step.outputs.values()}
    return names | {cache for name in names if (cache := buffers[name].cache) is not None}


def lifetimes(steps: Sequence[Step], buffers: Mapping[str, Buffer]) -> dict[str, tuple[int, int]]:
    """Per buffer, the indices of the first and last step that touch it."""
    spans: dict[str, tuple[int, int]] = {}
    for index, step in enumerate(steps):
        for name in touched(step, buffers):
            spans[name] = (spans.get(name, (index, index))[0], index)
    return spans
