"""The library for 64-bit ARM: cross-compiled, run under qemu with ONNX Runtime's own build for it (docs/aarch64.md).

The shipped model at fp32 draws the token ids that it draws on this machine, and nearly the same pixels.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from tests.runtime.native.conftest import ROOT, SOURCE, Build, run
from tests.runtime.native.robustness.conftest import need

log = logging.getLogger(__name__)
FOLDER = ROOT / "build" / "native-aarch64"
ASKED = "7 man astronaut\n0 red heart\n18446744073709551615 grinning face\n"
# qemu before 8.1 shows programs the host's /proc/cpuinfo, on which ONNX Runtime fails; a file in the sysroot overrides
# it. The CPU is a Cortex-A72, as in a Raspberry Pi 4.
CPU = "cortex-a72"
CPUINFO = """processor\t: {}
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3

"""


@dataclass(frozen=True)
class Drawn:
    """What pictures.c prints for one line: token ids of every scale, and the picture (H, W, 3) uint8."""

    scales: list[list[int]]
    picture: NDArray[np.uint8]


def draw(program: Path, engine: Path, bundle: Path, before: tuple[str, ...] = ()) -> list[Drawn]:
    environment = os.environ | {"HART_EDGE_ONNXRUNTIME": str(engine)}
    drawn, scales = [], list[list[int]]()
    for line in run(*before, program, bundle, input=ASKED, env=environment).splitlines():
        if not line.startswith("picture "):
            scales.append([int(each) for each in line.split()])
            continue
        _, width, height, _, pixels = line.split()
        picture = np.frombuffer(bytes.fromhex(pixels), np.uint8).reshape(int(height), int(width), 3)
        drawn.append(Drawn(scales, picture))
        scales = []
    return drawn


@pytest.fixture(scope="module")
def sysroot() -> Path:
    folder = FOLDER / "sysroot"
    if not folder.exists():
        run(SOURCE / "cmake" / "aarch64-sysroot.sh", folder)
    (folder / "proc").mkdir(exist_ok=True)
    (folder / "proc" / "cpuinfo").write_text("".join(CPUINFO.format(core) for core in range(os.cpu_count() or 1)))
    return folder


@pytest.fixture(scope="module")
def program(sysroot: Path, built: Build) -> Path:
    need("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu")
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={SOURCE / 'cmake' / 'aarch64.cmake'}"
    header = f"-DONNXRUNTIME_ROOT={built.folder / 'onnxruntime'}"
    run("cmake", "-S", SOURCE, "-B", FOLDER, toolchain, header, "-DHART_EDGE_TESTING=ON", "-DCMAKE_BUILD_TYPE=Release")
    run("cmake", "--build", FOLDER, "--parallel", "2", "--target", "hart_edge_pictures")
    return FOLDER / "tests" / "hart_edge_pictures"


@pytest.fixture(scope="module")
def arm_engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library in ONNX Runtime's wheel for 64-bit ARM, of the version that is installed here."""
    folder = tmp_path_factory.mktemp("engine")
    wanted = ["--platform", "manylinux_2_28_aarch64", "--only-binary=:all:", f"onnxruntime=={onnxruntime.__version__}"]
    run(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, *wanted)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        (name,) = (each for each in wheel.namelist() if Path(each).name.startswith("libonnxruntime.so."))
        return Path(wheel.extract(name, folder))


@pytest.mark.slow
def test_the_library_is_small_and_for_arm(program: Path, tmp_path: Path) -> None:
    library = FOLDER / "libhart_edge.so"
    assert "AArch64" in run("readelf", "--file-header", library)
    run("aarch64-linux-gnu-strip", "-o", tmp_path / "stripped.so", library.resolve())
    assert (tmp_path / "stripped.so").stat().st_size < 1_000_000


@pytest.mark.slow
def test_the_same_tokens_as_here(
    program: Path, sysroot: Path, arm_engine: Path, built: Build, engine: Path, fp32_bundle: Path
) -> None:
    emulator = need("qemu-aarch64-static", "qemu-user-static")
    run("cmake", "--build", built.folder, "--target", "hart_edge_pictures")
    here = draw(built.folder / "tests" / "hart_edge_pictures", engine, fp32_bundle)
    there = draw(program, arm_engine, fp32_bundle, before=(emulator, "-cpu", CPU, "-L", str(sysroot)))
    assert len(here) == len(there) == ASKED.count("\n")
    for one, other in zip(here, there, strict=True):
        assert [len(ids) for ids in one.scales] == [1, 4, 9, 16, 25, 36, 64]
        assert one.scales == other.scales
        difference = np.abs(one.picture.astype(int) - other.picture)
        log.info("pixels differ by %.3f steps of 255 in the mean, %d at most", difference.mean(), difference.max())
        assert difference.mean() <= 0.35 and difference.max() <= 10  # as in tests/test_end_to_end.py


@pytest.mark.slow
def test_a_toolchain_without_a_sysroot_says_how_to_get_one(program: Path, tmp_path: Path) -> None:
    command = ["cmake", "-S", str(SOURCE), "-B", str(tmp_path)]
    command.append(f"-DCMAKE_TOOLCHAIN_FILE={SOURCE / 'cmake' / 'aarch64.cmake'}")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "expected an arm64 sysroot in" in done.stderr and "aarch64-sysroot.sh" in done.stderr
