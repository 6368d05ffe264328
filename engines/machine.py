"""This machine as bundles name it."""

from __future__ import annotations

import platform

MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # names of one system for what the others call otherwise


def host_platform(system: str | None = None, machine: str | None = None) -> str:
    """The platform of engines in a manifest: linux-x86_64, linux-aarch64, windows-x86_64.

    system, machine: as platform.system() and platform.machine() name them, by default of this machine.
    """
    system, machine = (system or platform.system()).lower(), (machine or platform.machine()).lower()
    return f"{system}-{MACHINES.get(machine, machine)}"
