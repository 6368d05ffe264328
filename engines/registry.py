"""Which engine library serves which target, and what this machine can use."""

from __future__ import annotations

import importlib.metadata

from engines.base import Availability, EngineLibrary
from engines.onnxruntime import OnnxRuntimeLibrary
from runtime.errors import BuildError
from runtime.manifest import Target

LIBRARIES: dict[Target, EngineLibrary] = {
    Target.CPU: OnnxRuntimeLibrary(Target.CPU),
    Target.CUDA: OnnxRuntimeLibrary(Target.CUDA),
}


def library(target: Target) -> EngineLibrary:
    """The library that builds for a target. Raises BuildError for a target this version has none for."""
    if target not in LIBRARIES:
        known = " and ".join(LIBRARIES)
        raise BuildError(f"target {target}: this version builds for {known}; choose one of them")
    return LIBRARIES[target]


def survey() -> list[Availability]:
    """Every target, and whether this machine can use it."""
    found = [entry.availability() for entry in LIBRARIES.values()]
    for target in Target:
        if target in LIBRARIES:
            continue
        package = str(target)
        try:
            state = f"{package} {importlib.metadata.version(package)} is installed"
        except importlib.metadata.PackageNotFoundError:
            state = f"{package} is not installed"
        found.append(Availability(target, False, f"this version of hart-edge has no {target} engines; {state}"))
    return found
