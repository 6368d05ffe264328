"""Whether this machine can run a bundle's engines: decided from the manifest, before an engine is opened.

In: what the engines need and what was found here. Out: nothing, or an EngineError with the reason and the remedy.
"""

from __future__ import annotations

import itertools
import platform
from collections.abc import Sequence

from hart_edge.bundle.target import Engines, HardwareCompatibility, Target, TargetSpec
from hart_edge.errors import EngineError

JETSON = {"sm_72": "Jetson Xavier", "sm_87": "Jetson Orin", "sm_101": "Jetson Thor", "sm_110": "Jetson Thor"}
PRODUCTS = {Target.TENSORRT: "TensorRT", Target.TENSORRT_RTX: "TensorRT-RTX"}
OLDEST_RTX, OLDEST_AMPERE = 75, 80


def check_machine(target: TargetSpec, version: str, architecture: str, machine: str | None = None) -> None:
    """Raise EngineError unless engines of `target` run with this library version on a GPU of this architecture.

    version: of the installed library; architecture: `sm_87`; machine: `linux-x86_64`, by default this one.
    """
    engines = require_engines(target)
    product, here = PRODUCTS[target.name], machine or this_platform()
    remedy = f"build the engines for this machine with hart-edge engines BUNDLE --target {target.name}"
    if target.name is Target.TENSORRT_RTX:
        check_rtx(architecture)
    if engines.platform != here:
        raise EngineError(f"engines built for {engines.platform}, found a machine of {here}; {remedy}")
    if not runs_on(engines, architecture):
        built = ", ".join(engines.architectures)
        if engines.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS:
            built = "desktop GPUs from sm_80 on"
        raise EngineError(f"engines built for {built}, found a GPU of {named(architecture)}; {remedy}")
    check_version(engines, version, product, remedy)


def require_engines(target: TargetSpec) -> Engines:
    """What the engines need; EngineError for a portable bundle, whatever is installed here."""
    if target.engines is None:
        raise EngineError(
            f"this bundle holds graphs for {target.name}, no engines; build them on this machine with "
            f"hart-edge engines BUNDLE --target {target.name}"
        )
    return target.engines


def check_rtx(architecture: str) -> None:
    """TensorRT-RTX has no Jetson."""
    if architecture in JETSON or number(architecture) < OLDEST_RTX:
        raise EngineError(
            f"TensorRT-RTX runs on desktop RTX GPUs (sm_75, sm_80, sm_86, sm_89, sm_120, sm_121), found "
            f"{named(architecture)}; build with --target tensorrt on the device, or use a bundle for cpu"
        )


def runs_on(engines: Engines, architecture: str) -> bool:
    if architecture in engines.architectures:
        return True
    if engines.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS:
        return number(architecture) >= OLDEST_AMPERE and architecture not in JETSON
    return False


def check_version(engines: Engines, version: str, product: str, remedy: str) -> None:
    """The same version; or a later one of the same major where the engines are version compatible."""
    built, found = numbers(engines.version), numbers(version)
    if built[0] != found[0]:
        raise EngineError(
            f"engines built with {product} {engines.version}, found {product} {version}: engines do not outlive a "
            f"major version; {remedy}"
        )
    same = all(a == b for a, b in zip(built, found, strict=False))  # one may leave the build number out
    if same or (engines.version_compatible and later(found, built)):
        return
    expected = f"{engines.version} or later" if engines.version_compatible else engines.version
    raise EngineError(f"engines built with {product}: expected {expected}, found {version}; {remedy}")


def later(found: Sequence[int], built: Sequence[int]) -> bool:
    pairs = itertools.zip_longest(found, built, fillvalue=0)
    return next((a > b for a, b in pairs if a != b), True)


def numbers(version: str) -> list[int]:
    """The leading numbers of a version, 10.13.3.post1 -> [10, 13, 3]."""
    return [int(part) for part in itertools.takewhile(str.isdigit, version.split("."))] or [0]


def number(architecture: str) -> int:
    return int(architecture.removeprefix("sm_"))


def named(architecture: str) -> str:
    return f"{architecture} ({JETSON[architecture]})" if architecture in JETSON else architecture


def this_platform() -> str:
    """As the manifest has it: linux-x86_64, linux-aarch64, windows-x86_64, ..."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return f"{platform.system().lower()}-{machine}"
