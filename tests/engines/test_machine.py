"""Names of platforms and processors on every system."""

from pathlib import Path

import pytest

from hart_edge.engines.machine import host_platform, processor

X86 = """processor\t: 0
model name\t: Some Processor @ 2.00GHz
flags\t\t: fpu sse2 avx2 avx512f avx512_vnni amx_int8

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd42\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "cpuinfo"
    path.write_text(text)
    return path


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


def test_the_first_core_of_an_x86_processor(tmp_path: Path) -> None:
    found = processor(written(tmp_path, X86))
    assert found.name == "Some Processor @ 2.00GHz"
    assert found.instructions == ("AVX2", "AVX-512", "AVX-512 VNNI", "AMX INT8")
    assert str(found) == "Some Processor @ 2.00GHz, AVX2, AVX-512, AVX-512 VNNI, AMX INT8"


def test_arm_processors(tmp_path: Path) -> None:
    found = processor(written(tmp_path, ARM))
    assert found.name and found.instructions == ("NEON", "dot product")


def test_a_processor_without_any_of_the_instructions(tmp_path: Path) -> None:
    assert str(processor(written(tmp_path, "model name: Old\nflags: fpu\n"))).startswith("Old, none of AVX2, ")


def test_a_machine_without_cpu_information(tmp_path: Path) -> None:
    for found in (processor(tmp_path / "absent"), processor(written(tmp_path, "uptime: 3"))):
        assert found.name and found.instructions is None and str(found) == found.name
