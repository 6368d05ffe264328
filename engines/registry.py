"""Which engine library serves which target, and what this machine can use."""

from __future__ import annotations

from hart_edge.bundle.manifest import Target
from hart_edge.engines.base import Availability, EngineBuilder, EngineLibrary
from hart_edge.engines.onnxruntime.sessions import OnnxRuntimeLibrary
from hart_edge.engines.tensorrt.builder import TensorRTBuilder
from hart_edge.engines.tensorrt.facts import TENSORRT, TENSORRT_RTX
from hart_edge.errors import BuildError

LIBRARIES: dict[Target, EngineLibrary] = {
    Target.CPU: OnnxRuntimeLibrary(Target.CPU),
    Target.CUDA: OnnxRuntimeLibrary(Target.CUDA),
}


# Engines that are made ahead of their use, from graphs that ONNX Runtime checks on the CPU.
BUILDERS: dict[Target, EngineBuilder] = {
    Target.TENSORRT: TensorRTBuilder(TENSORRT),
    Target.TENSORRT_RTX: TensorRTBuilder(TENSORRT_RTX),
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
