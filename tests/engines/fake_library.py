"""An engine library for tests, added as any further library would be: a builder, a runner and a registry entry.

Its engines are ONNX graphs packed into one file, which ONNX Runtime runs; it needs no GPU and no TensorRT.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from hart_edge.bundle.manifest import Manifest, Precision, Target
from hart_edge.bundle.memory import MemoryRules
from hart_edge.bundle.verify import Bundle
from hart_edge.engines.base import Availability, BuildProgress, EngineSettings, Entry, GraphTraits, Profile, Watch
from hart_edge.errors import BuildError, EngineError
from hart_edge.runtime.loop import Array, Runner

VERSION, ARCHITECTURE = "3.1", "sm_42"


class PackingBuilder:
    """Builds engines for a target."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def availability(self) -> Availability:
        return Availability(self.target, True, f"packing {VERSION}, on a fake GPU")

    def version(self) -> str:
        return VERSION

    def check_precision(self, precision: Precision, settings: EngineSettings) -> None:
        if precision is Precision.INT8:
            raise BuildError("packing computes in no INT8; use --precision fp16")

    def check_graphs(self, manifest: Manifest, settings: EngineSettings) -> None:
        pass

    def prepare(self, settings: EngineSettings) -> EngineSettings:
        return replace(settings, architectures=(ARCHITECTURE,))

    def build(
        self, graph: Path, profiles: Sequence[Profile], settings: EngineSettings, out: Path, watch: Watch
    ) -> dict[str, Any]:
        watch(BuildProgress(graph.stem, "packing", 0, 1, 0.0))
        out.write_bytes(zlib.compress(onnx.load(graph).SerializeToString()))
        return {"engine_bytes": out.stat().st_size, "profiles": [profile.scale for profile in profiles]}


class PackedRunner:
    """Runs engines of PackingBuilder. Arrays are copied in and out."""

    def __init__(self, bundle: Bundle) -> None:
        engines = bundle.manifest.target.engines
        if engines is None:
            raise EngineError("packing runs engines, found graphs")
        self.opened: list[str] = []
        self._paths = {str(each.name): bundle.path(each.file) for each in bundle.manifest.components}
        self._sessions: dict[str, Any] = {}

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        if graph not in self._sessions:
            data = zlib.decompress(self._paths[graph].read_bytes())
            self._sessions[graph] = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
            self.opened.append(graph)
        found = self._sessions[graph].run(list(outputs), dict(inputs))
        for array, result in zip(outputs.values(), found, strict=True):
            array[...] = result


# Invented figures.
MEMORY = MemoryRules(100_000_000, 0, 1.0, 1.0, retained=False, shared=False, measured=False, keeps_first_scales=True)


def open_runner(bundle: Bundle, *, threads: int | None, low_memory: bool) -> Runner:
    return PackedRunner(bundle)


def entry(target: Target) -> Entry:
    """The registry entry of a target. Tests cannot extend the enum of targets, so it takes over an existing one."""
    traits = GraphTraits(fp16_tensors=False, int8_activations=False)
    return Entry(target, traits, MEMORY, open_runner, builder=PackingBuilder(target))
