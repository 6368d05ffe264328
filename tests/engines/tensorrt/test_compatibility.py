"""Engines that this machine cannot run are refused from the manifest, with the reason and the remedy."""

import pytest

from hart_edge.bundle.target import Engines, HardwareCompatibility, Target, TargetSpec
from hart_edge.engines.tensorrt.compatibility import check_machine, later, numbers
from hart_edge.errors import EngineError

REMEDY = "build the engines for this machine with hart-edge engines BUNDLE --target tensorrt"


def classic(compatibility: str = "none", compatible: bool = False, version: str = "10.13.3.9") -> TargetSpec:
    needs = Engines(version, "linux-aarch64", ("sm_87",), HardwareCompatibility(compatibility), compatible, 1)
    return TargetSpec(Target.TENSORRT, needs)


RTX = TargetSpec(
    Target.TENSORRT_RTX,
    Engines("1.7.1.116", "linux-x86_64", ("sm_86", "sm_89", "sm_120"), HardwareCompatibility.NONE, False, 1),
)


@pytest.mark.parametrize(
    ("target", "version", "architecture", "machine"),
    [
        (classic(), "10.13.3.9", "sm_87", "linux-aarch64"),
        (classic(), "10.13.3", "sm_87", "linux-aarch64"),  # the module of JetPack omits the build number
        (classic("same-compute-capability"), "10.13.3.9", "sm_87", "linux-aarch64"),
        (classic("ampere-plus"), "10.13.3.9", "sm_120", "linux-aarch64"),
        (classic(compatible=True), "10.14.0", "sm_87", "linux-aarch64"),
        (RTX, "1.7.1.116", "sm_120", "linux-x86_64"),
    ],
)
def test_compatible_machines(target: TargetSpec, version: str, architecture: str, machine: str) -> None:
    check_machine(target, version, architecture, machine)


@pytest.mark.parametrize(
    ("target", "version", "architecture", "machine", "message"),
    [
        (
            TargetSpec(Target.TENSORRT, None), "10.13.3.9", "sm_87", "linux-aarch64",
            "this bundle holds graphs for tensorrt, no engines; build them on this machine with "
            "hart-edge engines BUNDLE --target tensorrt",
        ),
        (
            RTX, "1.7.1.116", "sm_87", "linux-aarch64",
            "TensorRT-RTX runs on desktop RTX GPUs (sm_75, sm_80, sm_86, sm_89, sm_120, sm_121), found sm_87 (Jetson "
            "Orin); build with --target tensorrt on the device, or use a bundle for cpu",
        ),
        (
            RTX, "1.7.1.116", "sm_110", "linux-aarch64",
            "TensorRT-RTX runs on desktop RTX GPUs (sm_75, sm_80, sm_86, sm_89, sm_120, sm_121), found sm_110 (Jetson "
            "Thor); build with --target tensorrt on the device, or use a bundle for cpu",
        ),
        (
            RTX, "1.7.1.116", "sm_75", "linux-x86_64",
            f"engines built for sm_86, sm_89, sm_120, found a GPU of sm_75; {REMEDY}-rtx",
        ),
        (
            RTX, "1.7.2.3", "sm_89", "linux-x86_64",
            f"engines built with TensorRT-RTX: expected 1.7.1.116, found 1.7.2.3; {REMEDY}-rtx",
        ),
        (
            RTX, "1.7.1.116", "sm_89", "windows-x86_64",
            f"engines built for linux-x86_64, found a machine of windows-x86_64; {REMEDY}-rtx",
        ),
        (
            classic(), "11.4.1", "sm_87", "linux-aarch64",
            "engines built with TensorRT 10.13.3.9, found TensorRT 11.4.1: engines do not outlive a major version; "
            + REMEDY,
        ),
        (
            classic(compatible=True), "10.12.0", "sm_87", "linux-aarch64",
            f"engines built with TensorRT: expected 10.13.3.9 or later, found 10.12.0; {REMEDY}",
        ),
        (
            classic(), "10.13.3.9", "sm_110", "linux-aarch64",
            f"engines built for sm_87, found a GPU of sm_110 (Jetson Thor); {REMEDY}",
        ),
        (
            classic("ampere-plus"), "10.13.3.9", "sm_110", "linux-aarch64",
            f"engines built for desktop GPUs from sm_80 on, found a GPU of sm_110 (Jetson Thor); {REMEDY}",
        ),
    ],
)  # fmt: skip
def test_incompatible_machines(target: TargetSpec, version: str, architecture: str, machine: str, message: str) -> None:
    with pytest.raises(EngineError) as refused:
        check_machine(target, version, architecture, machine)
    assert str(refused.value) == message


def test_versions() -> None:
    assert numbers("10.13.3.post1") == [10, 13, 3] and numbers("dev") == [0]
    assert later([10, 3], [10, 3, 0]) and later([10, 4], [10, 3, 9]) and not later([10, 3], [10, 3, 1])
