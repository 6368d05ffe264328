"""This machine as bundles and reports name it."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # names of one system for what the others call otherwise


def host_platform(system: str | None = None, machine: str | None = None) -> str:
    """The platform of engines in a manifest: linux-x86_64, linux-aarch64, windows-x86_64.

    system, machine: as platform.system() and platform.machine() name them, by default of this machine.
    """
    system, machine = (system or platform.system()).lower(), (machine or platform.machine()).lower()
    return f"{system}-{MACHINES.get(machine, machine)}"


# What /proc/cpuinfo calls the instructions by which engine libraries choose their kernels: ours are the usual names.
INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_int8": "AMX INT8",
    "amx_bf16": "AMX BF16",
    "asimd": "NEON",
    "asimddp": "dot product",
    "i8mm": "I8MM",
    "sve": "SVE",
    "bf16": "BF16",
}


@dataclass(frozen=True)
class Processor:
    """name: the maker's, or the architecture. instructions: of INSTRUCTIONS, those it has; None where nothing tells."""

    name: str
    instructions: tuple[str, ...] | None

    def __str__(self) -> str:
        if self.instructions is None:
            return self.name
        return f"{self.name}, {', '.join(self.instructions) or 'none of ' + ', '.join(INSTRUCTIONS.values())}"


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> Processor:
    """The processor of this machine, on which the bytes of a picture depend (docs/randomness.md)."""
    unknown = platform.processor() or platform.machine()
    try:
        lines = [line.split(":", 1) for line in cpuinfo.read_text(errors="replace").splitlines() if ":" in line]
    except OSError:  # systems without /proc
        return Processor(unknown, None)
    facts = {key.strip(): value.strip() for key, value in reversed(lines)}  # of the first core
    flags = facts.get("flags", facts.get("Features"))  # x86, ARM
    if flags is None:
        return Processor(unknown, None)
    has = flags.split()
    return Processor(
        facts.get("model name", unknown), tuple(name for flag, name in INSTRUCTIONS.items() if flag in has)
    )
