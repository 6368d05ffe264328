"""The platform of a manifest, whatever the system calls itself."""

import pytest

from hart_edge.engines.machine import host_platform


@pytest.mark.parametrize(
    ("system", "machine", "platform"),
    [
        ("Windows", "AMD64", "windows-x86_64"),
        ("Linux", "x86_64", "linux-x86_64"),
        ("Linux", "aarch64", "linux-aarch64"),
        ("Darwin", "arm64", "darwin-aarch64"),
    ],
)
def test_platforms_are_named_as_manifests_name_them(system: str, machine: str, platform: str) -> None:
    assert host_platform(system, machine) == platform


def test_this_machine_has_a_name() -> None:
    assert host_platform().count("-") == 1
