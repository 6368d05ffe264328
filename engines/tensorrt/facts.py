"""What TensorRT and TensorRT-RTX can do, as a table: the one place where their builds differ.

Sources: docs/engines.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hart_edge.bundle.manifest import Target


@dataclass(frozen=True)
class Capabilities:
    """One library. majors: the major versions that this code is written for."""

    target: Target
    module: str
    install: str
    majors: range
    # The GPU architectures that one engine may name; empty: an engine is built on the GPU that will run it.
    architectures: tuple[str, ...] = ()
    default_architectures: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)  # architecture -> whose it is
    hardware_compatibility: bool = False
    version_compatible: bool = False
    timing_cache: bool = False

    @property
    def builds_without_gpu(self) -> bool:
        return bool(self.architectures)


TENSORRT = Capabilities(
    Target.TENSORRT,
    "tensorrt",
    "install the tensorrt of your JetPack (it comes with it) or of your CUDA version (10.x or 11.x)",
    range(10, 12),
    hardware_compatibility=True,
    version_compatible=True,
    timing_cache=True,
)
TENSORRT_RTX = Capabilities(
    Target.TENSORRT_RTX,
    "tensorrt_rtx",
    "pip install 'hart-edge[tensorrt-rtx]'",
    range(1, 2),
    architectures=("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121"),
    default_architectures=("sm_86", "sm_89", "sm_120"),
    refused={
        "sm_72": "Jetson Xavier",
        "sm_87": "Jetson Orin",
        "sm_101": "Jetson Thor",
        "sm_110": "Jetson Thor",
    },
)
