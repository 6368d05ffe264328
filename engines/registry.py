"""Which engine library serves which target, and what this machine can use."""

from __future__ import annotations

from engines import tensorrt, tensorrt_rtx
from engines.base import Availability, EngineBuilder, EngineLibrary
from engines.onnxruntime import OnnxRuntimeLibrary
from runtime.errors import BuildError
from runtime.manifest import Target

LIBRARIES: dict[Target, EngineLibrary] = {
    Target.CPU: OnnxRuntimeLibrary(Target.CPU),
    Target.CUDA: OnnxRuntimeLibrary(Target.CUDA),
}


# Engines that are made ahead of their use, from graphs that ONNX Runtime checks on the CPU.
BUILDERS: dict[Target, EngineBuilder] = {
    Target.TENSORRT: tensorrt.BUILDER,
    Target.TENSORRT_RTX: tensorrt_rtx.BUILDER,
}


def library(target: Target) -> EngineLibrary:
    """The library that runs graphs written for a target: its own, or the CPU's where graphs become engines."""
    return LIBRARIES[Target.CPU if target in BUILDERS else target]


def builder(target: Target) -> EngineBuilder:
    """The library that makes engines for a target. Raises BuildError for a target whose graphs run as they are."""
    if target not in BUILDERS:
        raise BuildError(f"target {target}: its graphs run as they are; engines are made for {' and '.join(BUILDERS)}")
    return BUILDERS[target]


def survey() -> list[Availability]:
    """Every target, and whether this machine can use it: run graphs, or make engines."""
    runs = [entry.availability() for entry in LIBRARIES.values()]
    return [*runs, *(entry.availability() for entry in BUILDERS.values())]
