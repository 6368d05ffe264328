"""manifest.json of a bundle, of format FORMAT_VERSION: bytes in, a Manifest out; and back.

docs/bundle.md is the specification, manifest.schema.json says the same to other tools, plan.py has the graphs and the
plan. `parse` refuses everything that the specification does not allow, so the code behind it trusts its Manifest.
Nothing here touches a file: verify.py and writer.py do.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any

from hart_edge.bundle.fields import REMEDY, Length, below, integer, plain, read, refuse, show, text
from hart_edge.bundle.plan import (
    MOST_BYTES,
    WHOLE,
    Buffer,
    BufferKind,
    Bytes,
    Component,
    ComponentName,
    Constant,
    Distribution,
    Dtype,
    Engine,
    Line,
    Name,
    Path,
    Plan,
    Precision,
    Step,
    TensorSpec,
    bytes_per_image,
    lifetimes,
)
from hart_edge.bundle.plan_check import check_plan
from hart_edge.bundle.quality import Quality, ScaleQuality
from hart_edge.bundle.settings import Count, Sampling, Speed, check_tables
from hart_edge.bundle.speeds import check_speeds, further_speed
from hart_edge.bundle.target import ENGINE_TARGETS, Engines, HardwareCompatibility, Target, TargetSpec, check_engines
from hart_edge.errors import BundleError

__all__ = [
    "CONSTANTS_FILE",
    "ENGINE_TARGETS",
    "FORMAT_VERSION",
    "MANIFEST_FILE",
    "MOST_MANIFEST_BYTES",
    "RANDOM_ENDING",
    "Buffer",
    "BufferKind",
    "Calibration",
    "Component",
    "ComponentName",
    "Constant",
    "Distribution",
    "Dtype",
    "Engine",
    "Engines",
    "FileEntry",
    "HardwareCompatibility",
    "Instruction",
    "Licence",
    "Manifest",
    "PaddingSide",
    "Plan",
    "Precision",
    "Quality",
    "Residual",
    "ScaleQuality",
    "Step",
    "Target",
    "TargetSpec",
    "TensorSpec",
    "Tokenizer",
    "bytes_per_image",
    "lifetimes",
    "parse",
    "to_json",
]

FORMAT_VERSION = 3
MANIFEST_FILE = "manifest.json"
CONSTANTS_FILE = "constants.bin"
MOST_MANIFEST_BYTES = 16 * 2**20
UPDATE = f"update hart-edge, or {REMEDY}"  # of a bundle that a later version has written
UPGRADE = "build it again with hart-edge upgrade BUNDLE"  # of one that an earlier version has written
RANDOM_ENDING = "-random"  # of the names of bundles whose weights are random numbers, and of no others
MOST_NAME = 100  # characters of a bundle's name
CONSTANT_ALIGNMENT = 64  # bytes; a cache line, and what accelerators ask of host memory

FurtherSpeed = Annotated[Speed, further_speed]
Sha256 = Annotated[str, text(64, r"[0-9a-f]{64}", "64 lower-case hex digits,")]


class PaddingSide(StrEnum):
    LEFT = "left"
    RIGHT = "right"


@dataclass(frozen=True)
class Instruction:
    """What the text model reads in front of every prompt, as constants of its graph. sha256: of its text in UTF-8."""

    tokens: Annotated[int, integer(1, 8192)]
    sha256: Sha256


@dataclass(frozen=True)
class Tokenizer:
    """embeddings: how many token ids the text model knows. The last two may be absent, and are then None in Python."""

    file: Path
    pad_token_id: Annotated[int, integer(0, 2**31 - 1)]
    padding_side: PaddingSide
    embeddings: Annotated[int | None, integer(1, 2**31 - 1)] = None
    instruction: Annotated[Instruction | None, functools.partial(read, Instruction)] = None

    @classmethod
    def keys_for(cls, given: Mapping[str, object]) -> frozenset[str]:
        """The keys that a tokenizer has in the manifest: those that may be absent where they are given."""
        absent = {key for key in ("embeddings", "instruction") if given.get(key) is None}
        return frozenset(cls.__dataclass_fields__) - absent


@dataclass(frozen=True)
class Residual:
    """timesteps: N original step numbers, ascending; noise_steps: N + 1, the start and each step's."""

    timesteps: Annotated[tuple[Annotated[int, integer(0, 99_999)], ...], Length(1, 1000)]
    noise_steps: Count


@dataclass(frozen=True)
class FileEntry:
    bytes: Bytes
    sha256: Sha256


@dataclass(frozen=True)
class Calibration:
    """What the INT8 ranges were made from. ranges_sha256: of calibration.json."""

    prompts: Count
    ranges_sha256: Sha256


@dataclass(frozen=True)
class Licence:
    part: Line
    spdx: Line
    attribution: Annotated[str, text(100_000)]


@dataclass(frozen=True)
class Manifest:
    format_version: Annotated[int, integer(FORMAT_VERSION, FORMAT_VERSION)]
    name: Annotated[str, text(MOST_NAME, r"[A-Za-z0-9][A-Za-z0-9._-]*", "a name of A-Z a-z 0-9 . _ -")]
    precision: Precision
    target: TargetSpec
    image_size: Annotated[int, integer(16, 8192)]
    patch_nums: Annotated[tuple[Annotated[int, integer(1, 512)], ...], Length(1, 64)]
    vocab_size: Count
    z_channels: Count
    context_tokens: Annotated[int, integer(1, 8192)]
    context_dim: Count
    tokenizer: Tokenizer | None
    sampling: Sampling
    residual: Residual
    components: Annotated[tuple[Component, ...], Length(1, len(ComponentName))]
    files: Annotated[dict[Path, FileEntry], Length(1, 10_000)]
    constants: dict[Name, Constant]
    plan: Plan  # of the speed exact
    calibration: Calibration | None
    quality: Quality | None
    licences: Annotated[tuple[Licence, ...], Length(0, 100)]
    tools: Annotated[dict[Line, Line], Length(0, 1000)]
    speeds: dict[FurtherSpeed, Plan] | None = None  # beside the exact one; None is for Python only, as in Buffer

    @classmethod
    def keys_for(cls, given: Mapping[str, object]) -> frozenset[str]:
        """The keys of a manifest: a bundle that has the speed exact alone lacks `speeds`."""
        return frozenset(cls.__dataclass_fields__) - (frozenset() if given.get("speeds") else {"speeds"})

    @property
    def plans(self) -> dict[Speed, Plan]:
        """The plan of every speed that the bundle has, the exact one first."""
        return {Speed.EXACT: self.plan, **(self.speeds or {})}

    @property
    def random(self) -> bool:
        """Whether the weights are random numbers: the name says so."""
        return self.name.endswith(RANDOM_ENDING)


def parse(data: bytes) -> Manifest:
    """The manifest in `data`, the bytes of a manifest.json; BundleError names the JSON path of a fault."""
    value = _load(data)
    if not isinstance(value, dict):
        refuse("", "an object", show(value))
    version = value.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:  # first: every other key may differ with it
        remedy = REMEDY
        if type(version) is int and version > 0:
            remedy = UPDATE if version > FORMAT_VERSION else UPGRADE
        found = show(version) if "format_version" in value else "no such key"
        refuse("format_version", str(FORMAT_VERSION), found, remedy)
    manifest = read(Manifest, value, "")
    _check_tables(manifest)
    _check_files(manifest)
    for speed, plan in manifest.plans.items():
        where = "plan" if speed is Speed.EXACT else f"speeds.{speed}"
        scales, size = len(manifest.patch_nums), manifest.image_size
        check_plan(plan, manifest.components, manifest.constants, scales, size, where)
        check_engines(manifest.target, manifest.components, plan, scales)
        _check_inputs(manifest, plan, where)
        _check_noise(manifest, plan, where)
    if manifest.speeds and manifest.target.engines is not None:
        refuse("speeds", "none beside engines, which have one profile a scale", "an object")
    check_speeds(manifest.sampling, manifest.plan, manifest.speeds or {})
    return manifest


def to_json(manifest: Manifest) -> bytes:
    """The bytes of manifest.json, the same for equal manifests; BundleError where `parse` refuses them."""
    data = json.dumps(plain(manifest), indent=1, ensure_ascii=True, allow_nan=False).encode() + b"\n"
    parse(data)
    return data


def _load(data: bytes) -> object:
    """JSON without what Python's reader lets through: duplicate keys, NaN, any depth, other encodings."""
    if len(data) > MOST_MANIFEST_BYTES:
        refuse("", f"at most {MOST_MANIFEST_BYTES} bytes", f"{len(data)}")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        refuse("", "UTF-8", f"byte {error.start} that is none")
    except RecursionError:
        refuse("", "nesting as in docs/bundle.md", "nesting without end")
    except ValueError as error:  # JSONDecodeError, and integers beyond Python's digit limit
        if isinstance(error, BundleError):
            raise
        refuse("", "JSON", str(error)[:200])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                refuse("", "every key once in an object", f"{show(key)} twice")
            seen.add(key)
    return unique


def _no_constant(name: str) -> None:
    refuse("", "finite numbers", name)


def _check_tables(manifest: Manifest) -> None:
    """Tables have one entry per scale or diffusion step, and rise where that is their nature."""
    if manifest.precision not in WHOLE:
        refuse("precision", "one of " + ", ".join(WHOLE), show(manifest.precision))
    sides = manifest.patch_nums
    if sides[0] != 1:
        refuse("patch_nums[0]", "1", f"{sides[0]}")
    _check_rising("patch_nums", sides)
    if manifest.image_size != 16 * sides[-1]:
        refuse("image_size", f"{16 * sides[-1]}, 16 times the last of patch_nums", f"{manifest.image_size}")
    check_tables(manifest.sampling, len(sides), manifest.vocab_size)
    if manifest.quality is not None and len(manifest.quality.scales) != len(sides):
        refuse("quality.scales", f"{len(sides)} entries, one per scale", f"{len(manifest.quality.scales)}")
    steps = manifest.residual.timesteps
    _check_rising("residual.timesteps", steps)
    if manifest.residual.noise_steps != len(steps) + 1:
        expected = f"{len(steps) + 1}, one more than timesteps"
        refuse("residual.noise_steps", expected, f"{manifest.residual.noise_steps}")


def _check_rising(where: str, values: tuple[int, ...]) -> None:
    for index, (before, value) in enumerate(itertools.pairwise(values), 1):
        if value <= before:
            refuse(f"{where}[{index}]", f"more than {before}, the entry before", f"{value}")


def _check_files(manifest: Manifest) -> None:
    """Every file that something names is listed, and the constants lie inside theirs."""
    files = manifest.files
    if MANIFEST_FILE in files:
        refuse("files", "every file but manifest.json", show(MANIFEST_FILE))
    for name in files:
        for parent in PurePosixPath(name).parents:
            if str(parent) in files:
                refuse(below("files", name), "a file in a folder", f"{show(str(parent))} as a file too")
    seen: set[str] = set()
    for index, component in enumerate(manifest.components):
        where = f"components[{index}]"
        if component.name in seen:
            refuse(f"{where}.name", "every component once", f"{show(component.name)} twice")
        seen.add(component.name)
        if component.file not in files:
            refuse(f"{where}.file", "a path in files", show(component.file))
        for key, specs in (("inputs", component.inputs), ("outputs", component.outputs)):
            names = [spec.name for spec in specs]
            for position, name in enumerate(names):
                if name in names[:position]:
                    refuse(f"{where}.{key}[{position}].name", "every tensor once", f"{show(name)} twice")
    if manifest.tokenizer is not None and manifest.tokenizer.file not in files:
        refuse("tokenizer.file", "a path in files", show(manifest.tokenizer.file))
    for name, constant in manifest.constants.items():
        where = below("constants", name)
        if CONSTANTS_FILE not in files:
            refuse(where, f"{CONSTANTS_FILE} in files", "none")
        if constant.nbytes > MOST_BYTES:
            refuse(f"{where}.shape", f"at most {MOST_BYTES} bytes", f"{constant.nbytes}")
        if constant.offset % CONSTANT_ALIGNMENT:
            refuse(f"{where}.offset", f"a multiple of {CONSTANT_ALIGNMENT}", f"{constant.offset}")
        end, size = constant.offset + constant.nbytes, files[CONSTANTS_FILE].bytes
        if end > size:
            refuse(where, f"to end within the {size} bytes of {CONSTANTS_FILE}", f"its end at {end}")


def _check_inputs(manifest: Manifest, plan: Plan, where: str) -> None:
    """What the caller is asked for: token ids, made with the tokenizer, or a context array and its mask."""
    tokens = manifest.context_tokens
    expected = {
        "input_ids": (Dtype.INT64, ("B", tokens)),
        "context": (Dtype.FLOAT32, ("B", tokens, manifest.context_dim)),
        "context_mask": (Dtype.BOOL, ("B", tokens)),
    }
    inputs = {name: each for name, each in plan.buffers.items() if each.kind is BufferKind.INPUT}
    for name, buffer in inputs.items():
        dtype, shape = expected[name]
        if (buffer.dtype, buffer.shape) != (dtype, shape):
            refuse(f"{where}.buffers.{name}", f"{dtype} {list(shape)}", f"{buffer.dtype} {list(buffer.shape)}")
    known = None if manifest.tokenizer is None else manifest.tokenizer.embeddings
    if manifest.tokenizer is not None and known is not None and manifest.tokenizer.pad_token_id >= known:
        refuse("tokenizer.pad_token_id", f"an id below {known}, the embeddings", f"{manifest.tokenizer.pad_token_id}")
    if manifest.tokenizer is None and "input_ids" in inputs:
        refuse("tokenizer", "a tokenizer, because the plan takes input_ids", "null")
    if manifest.tokenizer is not None and "input_ids" not in inputs:
        refuse("tokenizer", "null, because the plan takes a context array", "a tokenizer")


def _check_noise(manifest: Manifest, plan: Plan, where: str) -> None:
    """The shape by docs/randomness.md: element k of an image's noise is made of word k, so its last axis is fixed.

    There may be fewer tokens than the scale has, from the first on; RESIDUAL may have a part of the draws on axis 1.
    """
    most = manifest.residual.noise_steps
    for name, buffer in plan.buffers.items():
        if buffer.kind is not BufferKind.NOISE or buffer.scale is None:
            continue
        at, tokens = below(f"{where}.buffers", name), manifest.patch_nums[buffer.scale] ** 2
        wanted = Distribution.UNIFORM if buffer.purpose == 0 else Distribution.NORMAL
        if buffer.distribution is not wanted:
            refuse(f"{at}.distribution", show(wanted), show(buffer.distribution))
        if buffer.purpose == 0:
            if buffer.draw is not None:
                refuse(f"{at}.draw", "none, since tokens have one draw", f"{buffer.draw}")
            whole: tuple[int | str, ...] = ("B", tokens, manifest.vocab_size)
            fewer = {1: "tokens"}  # by axis
        else:
            draws = most - (buffer.draw or 0)
            if draws < 1:
                refuse(f"{at}.draw", f"a draw below {most}", f"{buffer.draw}")
            whole, fewer = ("B", draws, tokens, manifest.z_channels), {1: "draws", 2: "tokens"}
        if not _is_part(buffer.shape, whole, fewer):
            refuse(f"{at}.shape", f"{list(whole)} or fewer {' or '.join(fewer.values())}", f"{list(buffer.shape)}")


def _is_part(shape: Sequence[int | str], whole: Sequence[int | str], fewer: Collection[int]) -> bool:
    """Whether a shape is that of the whole but for some axes, which may be shorter and not empty."""
    if len(shape) != len(whole):
        return False
    for axis, (own, most) in enumerate(zip(shape, whole, strict=True)):
        shorter = axis in fewer and isinstance(own, int) and 1 <= own <= int(most)
        if own != most and not shorter:
            return False
    return True
