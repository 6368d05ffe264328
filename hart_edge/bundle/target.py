"""What a bundle was made for: the target, and what its engines need, which a loader compares before it opens one.

The dataclasses are JSON objects of docs/bundle.md; hart_edge/bundle/manifest.py reads them and calls check_engines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from hart_edge.bundle.fields import Length, integer, refuse, show, text
from hart_edge.bundle.plan import Component, Plan


class Target(StrEnum):
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    TENSORRT_RTX = "tensorrt-rtx"


class HardwareCompatibility(StrEnum):
    """Which GPUs besides those of `architectures` an engine runs on."""

    NONE = "none"
    SAME_COMPUTE_CAPABILITY = "same-compute-capability"  # any GPU of the architecture it was built on
    AMPERE_PLUS = "ampere-plus"  # any desktop GPU from sm_80 on


@dataclass(frozen=True)
class Engines:
    """What the engines of a bundle need. version: of the library that target.name names, which built them."""

    version: Annotated[str, text(40, r"[0-9]+(\.[0-9]+){1,3}", "a version such as 10.13.3.9,")]
    platform: Annotated[str, text(40, r"(linux|windows)-(x86_64|aarch64)", "linux or windows, -, x86_64 or aarch64,")]
    architectures: Annotated[
        tuple[Annotated[str, text(8, r"sm_[1-9][0-9]{1,2}", "a GPU architecture such as sm_86,")], ...], Length(1, 32)
    ]
    hardware_compatibility: HardwareCompatibility
    version_compatible: bool
    images_at_once: Annotated[int, integer(1, 1024)]


@dataclass(frozen=True)
class TargetSpec:
    """engines: None where the components are graphs."""

    name: Target
    engines: Engines | None


ENGINE_TARGETS = frozenset({Target.TENSORRT, Target.TENSORRT_RTX})


def check_engines(target: TargetSpec, components: Sequence[Component], plan: Plan, scales: int) -> None:
    """A bundle holds graphs or engines, not both, and engines have a profile for every step."""
    engines = target.engines
    if engines is not None and target.name not in ENGINE_TARGETS:
        refuse("target.engines", f"null for {target.name}, which runs graphs", "an object")
    if engines is not None and len(set(engines.architectures)) < len(engines.architectures):
        refuse("target.engines.architectures", "every architecture once", show(", ".join(engines.architectures)))
    suffix = ".onnx" if engines is None else ".engine"
    for index, component in enumerate(components):
        where = f"components[{index}]"
        if not component.file.endswith(suffix):
            refuse(f"{where}.file", f"a path that ends with {suffix}", show(component.file))
        if component.engine is None:
            continue
        profiles = component.engine.profiles
        for position, scale in enumerate(profiles):
            at = f"{where}.engine.profiles[{position}]"
            if scale is not None and scale >= scales:
                refuse(at, f"null or an integer from 0 to {scales - 1}", f"{scale}")
            if scale in profiles[:position]:
                refuse(at, "every scale once", f"{show(scale)} twice")
        for step in plan.steps:
            if step.graph == component.name and step.scale not in profiles:
                expected = f"a profile for scale {show(step.scale)}, which the plan runs"
                refuse(f"{where}.engine.profiles", expected, "none")
