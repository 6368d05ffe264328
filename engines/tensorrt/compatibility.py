"""Whether this machine can run a bundle's engines: decided from the manifest, before an engine is opened.

In: what the engines need and what was found here. Out: nothing, or an EngineError with the reason and the remedy.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hart_edge.bundle.target import Engines, HardwareCompatibility, TargetSpec
from hart_edge.engines.machine import host_platform
from hart_edge.engines.tensorrt.facts import AMPERE, JETSON, LIBRARIES, Capabilities, named, number
from hart_edge.errors import EngineError


def check_machine(target: TargetSpec, version: str, architecture: str, machine: str | None = None) -> None:
    """Raise EngineError unless engines of `target` run with this library version on a GPU of this architecture.

    version: of the installed library; architecture: `sm_87`; machine: `linux-x86_64`, by default this one.
    """
    engines = require_engines(target)
    facts, here = LIBRARIES[target.name], machine or host_platform()
    remedy = f"build the engines for this machine with hart-edge engines BUNDLE --target {target.name}"
    check_gpu(facts, architecture)
    if engines.platform != here:
        raise EngineError(f"engines built for {engines.platform}, found a machine of {here}; {remedy}")
    if not runs_on(engines, architecture):
        built = ", ".join(engines.architectures)
        if engines.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS:
            built = f"desktop GPUs from sm_{AMPERE} on"
        raise EngineError(f"engines built for {built}, found a GPU of {named(architecture)}; {remedy}")
    check_version(engines, version, facts.product, remedy)


def require_engines(target: TargetSpec) -> Engines:
    """What the engines need; EngineError for a portable bundle, whatever is installed here."""
    if target.engines is None:
        raise EngineError(
            f"this bundle holds graphs for {target.name}, no engines; build them on this machine with "
            f"hart-edge engines BUNDLE --target {target.name}"
        )
    return target.engines


def check_gpu(facts: Capabilities, architecture: str) -> None:
    """Raise EngineError for a GPU that the library itself does not run on."""
    if (architecture in JETSON and not facts.runs_on_jetson) or number(architecture) < facts.oldest_architecture:
        raise EngineError(
            f"{facts.product} runs on desktop RTX GPUs ({', '.join(facts.architectures)}), found "
            f"{named(architecture)}; build with --target tensorrt on the device, or use a bundle for cpu"
        )


def runs_on(engines: Engines, architecture: str) -> bool:
    if architecture in engines.architectures:
        return True
    if engines.hardware_compatibility is HardwareCompatibility.AMPERE_PLUS:
        return number(architecture) >= AMPERE and architecture not in JETSON
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
