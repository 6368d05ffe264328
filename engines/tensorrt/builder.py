"""TensorRT and TensorRT-RTX: a graph in, an engine file and a report out. They share all but facts.py.

The library is imported in a process per engine (engines/tensorrt/worker.py); this side checks what is asked for,
starts that process, passes its progress on, and ends it when the build is interrupted.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import hart_edge
from hart_edge.bundle.arena import ARENA_ALIGNMENT
from hart_edge.bundle.manifest import HardwareCompatibility, Manifest, Precision, Target
from hart_edge.bundle.program import row_size, unaligned_rows
from hart_edge.engines.base import Availability, BuildProgress, EngineSettings, Profile, Watch
from hart_edge.engines.tensorrt.device import gpu_architecture
from hart_edge.engines.tensorrt.facts import JETSON, Capabilities
from hart_edge.errors import BuildError, EngineError

BEAT = 1.0  # seconds without news after which progress is shown again, so that nobody takes a build for a hang


class TensorRTBuilder:
    """One of the two libraries, as its capabilities describe it."""

    def __init__(self, capabilities: Capabilities, gpu: Callable[[], str | None] = gpu_architecture) -> None:
        """gpu: tells the architecture of this machine's GPU, None where there is none."""
        self.capabilities, self._gpu = capabilities, gpu
        self.target: Target = capabilities.target

    def availability(self) -> Availability:
        try:
            version = self.version()
        except EngineError as error:
            return Availability(self.target, False, str(error))
        named, gpu = f"{self.capabilities.module} {version}", self._gpu()
        if gpu is not None:
            return Availability(self.target, True, f"{named}, on a GPU of {gpu}")
        able = "builds engines here; they run" if self.capabilities.builds_without_gpu else "builds and runs engines"
        return Availability(self.target, False, f"{named} {able} where there is an NVIDIA driver, and here is none")

    def version(self) -> str:
        module, remedy = self.capabilities.module, self.capabilities.remedy
        if find_spec(module) is None:
            raise EngineError(f"{module} is not installed; {remedy}")
        for package in (module, self.capabilities.package):
            try:
                version = metadata.version(package)
                break
            except metadata.PackageNotFoundError:
                continue
        else:  # installed by a system's package manager, without Python's records
            version = _imported_version(module)
        if int(version.split(".")[0]) not in self.capabilities.majors:
            known = f"{self.capabilities.majors[0]}.x to {self.capabilities.majors[-1]}.x"
            raise EngineError(f"{module} {version} is installed, this version of hart-edge knows {known}; {remedy}")
        return version

    def check_precision(self, precision: Precision, settings: EngineSettings) -> None:
        if reason := self.capabilities.lacks(precision, settings.architectures):
            raise BuildError(f"target {self.target}: {reason}; use --precision fp16, or other --architectures")

    def check_graphs(self, manifest: Manifest, settings: EngineSettings) -> None:
        if rows := unaligned_rows(manifest.plan):
            found = row_size(manifest.plan.buffers[rows])
            raise BuildError(
                f"{manifest.name}: expected keys and values of a multiple of {ARENA_ALIGNMENT} bytes a token, which is "
                f"where {self.capabilities.product} takes addresses, found {found} ({rows}); use a checkpoint whose "
                "embed_dim is a multiple of 128, or build for cpu or cuda"
            )
        for component in manifest.components:
            if reason := self.capabilities.lacks(component.precision, settings.architectures):
                raise BuildError(
                    f"{component.name}: it is {component.precision}, and {reason}; build the bundle with python -m "
                    f"export.build --target {self.target} --precision fp16 --architectures "
                    f"{' '.join(settings.architectures)}"
                )

    def prepare(self, settings: EngineSettings) -> EngineSettings:
        able = self.capabilities
        if settings.version_compatible and not able.version_compatible:
            raise BuildError(
                f"target {self.target}: engines run on the version that built them; leave --version-compatible out"
            )
        if settings.hardware_compatibility is not HardwareCompatibility.NONE and not able.hardware_compatibility:
            raise BuildError(
                f"target {self.target}: engines name the architectures they are for; use --architectures instead of "
                "--hardware-compatibility"
            )
        if settings.timing_cache is not None and not able.timing_cache:
            raise BuildError(f"target {self.target}: it times nothing while it builds; leave --timing-cache out")
        if able.builds_without_gpu:
            settings = replace(settings, architectures=self._checked(settings.architectures))
            self._require_library()
            return settings
        self._require_library()
        found = self._gpu()
        if found is None:
            raise EngineError(
                f"target {self.target}: engines are built on the GPU that will run them, and this machine has no "
                "NVIDIA driver; copy the portable bundle to that machine and run hart-edge engines there"
            )
        if any(architecture != found for architecture in settings.architectures):
            raise BuildError(
                f"target {self.target}: engines are built for the GPU of this machine, {found}; asked for "
                f"{', '.join(settings.architectures)}. Build on such a machine, or leave --architectures out"
            )
        return replace(settings, architectures=(found,))

    def _require_library(self) -> None:
        try:
            self.version()
        except EngineError as error:
            raise EngineError(f"target {self.target}: {error}") from error

    def _checked(self, architectures: Sequence[str]) -> tuple[str, ...]:
        able = self.capabilities
        for architecture in architectures or able.default_architectures:
            if architecture in JETSON and not able.runs_on_jetson:
                raise BuildError(
                    f"target {self.target}: {architecture} is {JETSON[architecture]}, where {able.product} does not "
                    f"run; build there with hart-edge engines BUNDLE --target {Target.TENSORRT}"
                )
            if architecture not in able.architectures:
                raise BuildError(
                    f"target {self.target}: expected architectures of {', '.join(able.architectures)}, found "
                    f"{architecture}; other GPUs take --target {Target.TENSORRT}, built on that machine"
                )
        return tuple(dict.fromkeys(architectures or able.default_architectures))

    def build(
        self, graph: Path, profiles: Sequence[Profile], settings: EngineSettings, out: Path, watch: Watch
    ) -> dict[str, Any]:
        """settings: as prepare returned them."""
        part = out.with_name(out.name + ".part")
        named = self.capabilities.builds_without_gpu
        job = {
            "module": self.capabilities.module,
            "component": graph.stem,
            "graph": str(graph),
            "out": str(part),
            "profiles": [dict(profile.shapes) for profile in profiles],
            "compute_capabilities": [name.replace("sm_", "SM") for name in settings.architectures] if named else [],
            "workspace": settings.workspace,
            "version_compatible": settings.version_compatible,
            "hardware_compatibility": settings.hardware_compatibility.upper().replace("-", "_"),
            "timing_cache": None if settings.timing_cache is None else str(settings.timing_cache),
        }
        try:
            report = _run(job, watch)
            part.replace(out)
        finally:
            part.unlink(missing_ok=True)
        return report | {
            "library": self.capabilities.module,
            "architectures": list(settings.architectures),
            "profiles": [
                {"scale": profile.scale, "shapes": {name: list(map(list, s)) for name, s in profile.shapes.items()}}
                for profile in profiles
            ],
        }


def _imported_version(module: str) -> str:
    """The version that the module states, asked in a process that ends: importing it here would keep 100s of MB."""
    command = [sys.executable, "-c", f"import {module}; print({module}.__version__)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EngineError(f"{module} cannot be imported ({reason}); install it again")
    return done.stdout.strip()


def _run(job: Mapping[str, Any], watch: Watch) -> dict[str, Any]:
    """Run the worker on a job, showing its progress, and return its report. The worker ends with this call."""
    component, begin = str(job["component"]), time.monotonic()
    root = str(Path(hart_edge.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "hart_edge.engines.tensorrt.worker"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    )
    assert process.stdin is not None and process.stdout is not None
    lines: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    at = BuildProgress(component, "starting", 0, 1, 0.0)
    try:
        json.dump(job, process.stdin)
        process.stdin.close()
        watch(at)
        while True:
            try:
                line = lines.get(timeout=BEAT)
            except queue.Empty:
                line = ""
            if line is None:
                break
            event = json.loads(line) if line else {}
            if "report" in event:
                report: dict[str, Any] = event["report"]
                return report
            if "error" in event:
                raise BuildError(str(event["error"]))
            at = replace(at, **event, seconds=time.monotonic() - begin)
            watch(at)
        status = process.wait()
    except BrokenPipeError:
        status = process.wait()
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
    reason = f"signal {-status}, as when memory runs out" if status < 0 else f"status {status}"
    raise BuildError(
        f"{component}: {job['module']} ended while {at.phase} without an engine ({reason}); free memory, lower "
        "--workspace, or report it"
    )


def _read(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)
