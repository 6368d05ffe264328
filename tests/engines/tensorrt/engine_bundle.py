"""Makes bundles of engines for the fake TensorRT, and installs the fakes in place of the real libraries."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from hart_edge.bundle.manifest import (
    ComponentName,
    Engine,
    Engines,
    HardwareCompatibility,
    Target,
    TargetSpec,
    parse,
    to_json,
)
from hart_edge.bundle.program import buffer_shape
from hart_edge.engines.machine import host_platform
from tests.bundle.make_bundle import file_entry, list_files
from tests.engines.tensorrt.fake_cuda import FakeCuda
from tests.engines.tensorrt.fake_tensorrt import FakeTensorRT, Profiles, engine_bytes

VERSIONS = {Target.TENSORRT: "10.13.3.9", Target.TENSORRT_RTX: "1.7.1.116"}
MODULES = {Target.TENSORRT: "tensorrt", Target.TENSORRT_RTX: "tensorrt_rtx"}


def make_engine_bundle(graphs: Path, folder: Path, target: Target = Target.TENSORRT_RTX, **needs: Any) -> Path:
    """Write into `folder` the bundle `graphs` with fake engines, which refer to the graphs by their paths.

    needs: fields of target.engines that differ from: this platform, sm_89, the version of VERSIONS, nothing compatible.
    """
    manifest = parse((graphs / "manifest.json").read_bytes())
    shutil.copytree(graphs, folder, ignore=shutil.ignore_patterns("graphs"))
    (folder / "engines").mkdir()
    components = []
    for component in manifest.components:
        order, profiles = profiles_of(manifest, component.name)
        file = f"engines/{component.name}.engine"
        data = engine_bytes(graphs / component.file, profiles)
        (folder / file).write_bytes(data)
        components.append(dataclasses.replace(component, file=file, bytes=len(data), engine=Engine(order)))
    needed = Engines(VERSIONS[target], host_platform(), ("sm_89",), HardwareCompatibility.NONE, False, 1)
    changed = dataclasses.replace(
        manifest,
        target=TargetSpec(target, dataclasses.replace(needed, **needs)),
        components=tuple(components),
        files={name: file_entry(folder / name) for name in list_files(folder)},
        speeds=None,  # of the graphs that they stand for
    )
    (folder / "manifest.json").write_bytes(to_json(changed))
    return folder


def profiles_of(manifest: Any, graph: ComponentName) -> tuple[tuple[int | None, ...], Profiles]:
    """Scales at which a graph runs, and its input shapes there; the last scale comes first, so that order is tested."""
    shapes = {}
    for step in manifest.plan.steps:
        if step.graph == graph:
            buffers = {tensor: manifest.plan.buffers[name] for tensor, name in step.inputs.items()}
            shapes[step.scale] = {tensor: buffer_shape(buffer, 1) for tensor, buffer in buffers.items()}
    if not shapes:  # the encoder, which no step runs
        component = next(each for each in manifest.components if each.name == graph)
        shapes[None] = {each.name: [1 if size == "B" else size for size in each.shape] for each in component.inputs}
    order = tuple(reversed(shapes))
    return order, [shapes[scale] for scale in order]


def install(
    patch: pytest.MonkeyPatch, target: Target = Target.TENSORRT_RTX, cuda: FakeCuda | None = None, **options: Any
) -> FakeTensorRT:
    """Put the fakes into sys.modules, where engines/ imports the libraries from."""
    cuda = cuda or FakeCuda()
    library = FakeTensorRT(cuda, options.pop("version", VERSIONS[target]), **options)
    install_cuda(patch, cuda)
    patch.setitem(sys.modules, MODULES[target], library)
    return library


def install_cuda(patch: pytest.MonkeyPatch, cuda: FakeCuda) -> FakeCuda:
    bindings = types.ModuleType("cuda.bindings")
    bindings.runtime = cuda
    patch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    patch.setitem(sys.modules, "cuda.bindings", bindings)
    patch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    return cuda
