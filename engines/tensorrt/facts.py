"""What is known of TensorRT and TensorRT-RTX, as data: the one place where the two libraries and the GPUs differ.

Builds, runners, INT8 schemes and the lint of graphs read their facts here. Sources: docs/engines.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hart_edge.bundle.manifest import Precision
from hart_edge.bundle.target import Target

JETSON = {"sm_72": "Jetson Xavier", "sm_87": "Jetson Orin", "sm_101": "Jetson Thor", "sm_110": "Jetson Thor"}
AMPERE = 80  # the number of the oldest architecture that engines of --hardware-compatibility ampere-plus run on
# TensorRT-RTX 1.7.1 builds no engine for the residual graph when these weights are INT8 besides the others (its
# compiler ends with "vector::_M_range_check"); they are 0.05 M of 0.7 M parameters in the model that comes along.
NO_INT8_ENGINE = "residual.final."


@dataclass(frozen=True)
class Capabilities:
    """One library. majors: the major versions that this code is written for; oldest: the oldest version that runs."""

    target: Target
    product: str
    module: str
    package: str
    extra: str  # hart-edge[extra] installs the library and cuda-bindings
    remedy: str  # what to do where the library is missing
    majors: range
    oldest: tuple[int, int]
    oldest_architecture: int = 0  # the number of an sm_...
    runs_on_jetson: bool = True
    # The GPU architectures that one engine may name; empty: an engine is built on the GPU that will run it.
    architectures: tuple[str, ...] = ()
    default_architectures: tuple[str, ...] = ()
    no_float32_products: frozenset[str] = frozenset()  # architectures that no matrix product in float32 is compiled for
    no_int8_weights: frozenset[str] = frozenset()
    int8_activations: bool = True  # else INT8 is weight-only
    compiles_on_device: bool = False  # kernels are made when a context first runs, as a runtime configuration says
    hardware_compatibility: bool = False
    version_compatible: bool = False
    timing_cache: bool = False

    @property
    def builds_without_gpu(self) -> bool:
        return bool(self.architectures)

    def lacks(self, precision: Precision, architectures: Sequence[str]) -> str | None:
        """Why no engine for these GPUs computes at a precision; None where there is no such reason."""
        unsupported, what = {
            Precision.FP32: (self.no_float32_products, "has no matrix products in float32 for"),
            Precision.FP16: (frozenset[str](), ""),
            Precision.INT8: (self.no_int8_weights, "supports no INT8 weights on"),
        }[precision]
        found = [architecture for architecture in architectures if architecture in unsupported]
        return f"{self.product} {what} {', '.join(found)}" if found else None


TENSORRT = Capabilities(
    target=Target.TENSORRT,
    product="TensorRT",
    module="tensorrt",
    package="tensorrt",
    extra="tensorrt",
    remedy="pip install 'hart-edge[tensorrt]', or on Jetson the python3-libnvinfer of JetPack",
    majors=range(10, 12),
    oldest=(10, 3),
    hardware_compatibility=True,
    version_compatible=True,
    timing_cache=True,
)
TENSORRT_RTX = Capabilities(
    target=Target.TENSORRT_RTX,
    product="TensorRT-RTX",
    module="tensorrt_rtx",
    package="tensorrt-rtx",
    extra="tensorrt-rtx",
    remedy="pip install 'hart-edge[tensorrt-rtx]'",
    majors=range(1, 2),
    oldest=(1, 2),
    oldest_architecture=75,
    runs_on_jetson=False,
    architectures=("sm_75", "sm_80", "sm_86", "sm_89", "sm_120", "sm_121"),
    default_architectures=("sm_86", "sm_89", "sm_120"),
    no_float32_products=frozenset({"sm_75"}),
    no_int8_weights=frozenset({"sm_75"}),
    int8_activations=False,
    compiles_on_device=True,
)
LIBRARIES = {each.target: each for each in (TENSORRT, TENSORRT_RTX)}


@dataclass(frozen=True)
class Parser:
    """What one major version of TensorRT reads. opsets: of the default domain, from every release of it."""

    major: int
    opsets: range
    most_dimensions: int = 8  # nvinfer1::Dims::MAX_DIMS
    top_k_below: int = 3840


PARSERS = {10: Parser(10, range(9, 21)), 11: Parser(11, range(9, 21))}


def number(architecture: str) -> int:
    """sm_87 -> 87."""
    return int(architecture.removeprefix("sm_"))


def named(architecture: str) -> str:
    """An architecture for a message: sm_87 (Jetson Orin)."""
    return f"{architecture} ({JETSON[architecture]})" if architecture in JETSON else architecture
