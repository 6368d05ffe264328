"""A bundle with engines as tensorrt/fake_tensorrt.cpp reads them: ONNX graphs after a header of a few bytes."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import onnx

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
from tests.bundle.make_bundle import file_entry, list_files


def with_engines(graphs: Path, folder: Path, **needs: Any) -> Path:
    """The bundle with fake engines in place of its graphs; needs: fields of target.engines that differ."""
    shutil.copytree(graphs, folder)
    manifest = parse((folder / "manifest.json").read_bytes())
    profiles: dict[ComponentName, list[int | None]] = {each.name: [] for each in manifest.components}
    for step in reversed(manifest.plan.steps):  # profiles in another order than the steps
        if step.scale not in profiles[step.graph]:
            profiles[step.graph].append(step.scale)
    (folder / "engines").mkdir()
    components = []
    for component in manifest.components:
        graph, file = folder / component.file, f"engines/{component.name}.engine"
        served = profiles[component.name] or [None]  # no plan runs the encoder
        inside = onnx.load(graph).SerializeToString()  # external weights included
        (folder / file).write_bytes(b"fake" + bytes([len(served)]) + inside)
        components.append(dataclasses.replace(component, file=file, engine=Engine(tuple(served))))
    shutil.rmtree(folder / "graphs")
    usual = Engines("10.13.3", "linux-x86_64", ("sm_86", "sm_89"), HardwareCompatibility.NONE, False, 1)
    target = TargetSpec(Target.TENSORRT, dataclasses.replace(usual, **needs))
    files = {name: file_entry(folder / name) for name in list_files(folder)}
    changed = dataclasses.replace(manifest, target=target, components=tuple(components), files=files, speeds=None)
    (folder / "manifest.json").write_bytes(to_json(changed))
    return folder
