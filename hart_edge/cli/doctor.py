"""`hart-edge doctor`: which targets this machine can use and why not the others, and what it is made of."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hart_edge import __version__
from hart_edge.api import DEFAULT_BUNDLE, find_bundle
from hart_edge.bundle.limits import Memory, process_memory
from hart_edge.cli.command import Commands, new_command
from hart_edge.cli.tables import table
from hart_edge.engines.machine import Processor, processor
from hart_edge.engines.registry import REGISTRY
from hart_edge.engines.tensorrt.cuda import Cuda
from hart_edge.errors import BundleError, EngineError
from hart_edge.units import size

BUILD_PACKAGES = ("torch", "onnx", "onnxscript", "transformers", "safetensors")  # what export.build imports

Version = Callable[[str], str | None]  # of a package, by its name


def add(commands: Commands) -> None:
    p = new_command(
        commands,
        "doctor",
        "Show which targets this machine can use, and why not the others; exit 1 if none. With --gpu-check: hold "
        "engines against ONNX Runtime on this GPU and measure them; exit 1 beyond tolerance.",
        run,
    )
    p.add_argument("--gpu-check", type=Path, metavar="BUNDLE", help="bundle of TensorRT or TensorRT-RTX engines")
    p.add_argument("--reference", type=Path, metavar="GRAPHS", help="the bundle of graphs that they were made from")
    p.add_argument("--against", type=Path, metavar="BUNDLE", help="engines to compare speed with: FP16 beside INT8")
    p.add_argument("--mixed", type=Path, metavar="OUT", help="write a bundle that takes slower graphs from --against")
    p.add_argument("--prompt", default="man astronaut", help="what is drawn (default: man astronaut)")
    p.add_argument(
        "--pictures", type=int, default=10, metavar="N", help="pictures that times are medians of (default: 10)"
    )
    p.add_argument("--report", type=Path, metavar="FILE.json", help="write the report there as well")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(a: argparse.Namespace, version: Version | None = None, memory: Callable[[], Memory] = process_memory) -> int:
    """version: the function that looks up installed packages; by default installed_version(). memory: tells what a
    process may take."""
    if a.gpu_check is not None:
        from hart_edge.cli.gpu_check import run as run_check

        return run_check(a)
    found = examine(version or installed_version, memory())
    if a.json:
        print(json.dumps(found, indent=1))
    else:
        print("\n".join(as_text(found)))
    return 0 if any(target["usable"] for target in found["targets"]) else 1


def examine(version: Version, memory: Memory) -> dict[str, Any]:
    """All that doctor knows, ready for JSON."""
    return {
        "hart_edge": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": version("numpy"),
        "processor": dataclasses.asdict(processor()),
        "cores": cores(),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "memory_limit": memory.limit,
        "machine_memory_bytes": memory.machine,
        "targets": [dataclasses.asdict(each) for each in REGISTRY.survey()],
        "gpu": gpu(),
        "build_packages": {name: version(name) for name in BUILD_PACKAGES},
        "default_bundle": default_bundle(),
    }


def as_text(found: dict[str, Any]) -> list[str]:
    """The lines that a person reads."""
    rows = [(t["target"], "yes" if t["usable"] else "no", t["detail"]) for t in found["targets"]]
    packages = found["build_packages"]
    have = [f"{name} {version}" for name, version in packages.items() if version is not None]
    lack = [name for name, version in packages.items() if version is None]
    if lack:
        building = f"not possible here: {', '.join(lack)} not installed; pip install 'hart-edge[export]'"
    else:
        building = f"possible here: {', '.join(have)}"
    bundle = found["default_bundle"]
    remedy = "" if bundle["present"] else "; build it with python -m export.build --precision int8"
    total, available = found["memory_bytes"], found["memory_available_bytes"]
    limit, machine = "", found["machine_memory_bytes"]
    if found["memory_limit"] is not None:
        limit = f": {found['memory_limit']}, of a machine with {'unknown' if machine is None else size(machine)}"
    facts = [
        ("hart-edge", f"{found['hart_edge']}, Python {found['python']}, numpy {found['numpy']}"),
        ("machine", f"{found['platform']}, {found['cores']} cores, "
                    f"memory {'unknown' if total is None else size(total)}"
                    f"{'' if available is None else f' ({size(available)} free)'}{limit}"),
        ("processor", str(Processor(**found["processor"]))),
        ("bundles", building),
        ("default", f"{bundle['path']} is {'here' if bundle['present'] else 'not here'}{remedy}"),
    ]  # fmt: skip
    return [
        *(f"{name:10} {value}" for name, value in facts),
        "",
        *table(("target", "usable", "because"), rows),
        "target: what bundles are built for. usable: whether this machine can draw with them. because: the library",
        "that does, or what is missing and how to get it.",
        "",
        f"{'gpu':10} {found['gpu']['detail']}",
    ]


def default_bundle() -> dict[str, Any]:
    """The bundle that is drawn with where none is named."""
    try:
        return {"path": str(find_bundle(None)), "present": True}
    except BundleError:
        return {"path": str(DEFAULT_BUNDLE), "present": False}


def gpu() -> dict[str, Any]:
    """The first GPU as engines see it, or why there is none to run them on."""
    try:
        cuda = Cuda("tensorrt")
    except EngineError as error:
        return {"usable": False, "architecture": None, "detail": str(error)}
    device, driver = cuda.device(), cuda.driver_version()
    known = f"CUDA driver {driver // 1000}.{driver % 1000 // 10}"
    detail = f"{device.name}, {device.architecture}, {size(device.memory)}, {known}"
    return {"usable": True, "architecture": device.architecture, "detail": detail}


def installed_version(package: str) -> str | None:
    """The installed version, without importing the package; None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
