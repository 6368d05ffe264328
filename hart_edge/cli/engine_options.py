"""The options that say what engines are built for, shared by `hart-edge engines` and `hart-edge build`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from hart_edge.bundle.manifest import HardwareCompatibility
from hart_edge.cli.values import bytes_of, whole
from hart_edge.engines.base import EngineSettings
from hart_edge.engines.tensorrt.facts import TENSORRT_RTX


def architecture(text: str) -> str:
    """A GPU architecture as bundles name it: sm_86; 86, sm86 and 8.6 are understood."""
    match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a GPU architecture such as sm_86, found {text!r}")
    return f"sm_{match[1]}{match[2]}"


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    p = parser.add_argument_group("engines of tensorrt and tensorrt-rtx")
    p.add_argument(
        "--architectures",
        nargs="+",
        type=architecture,
        default=[],
        metavar="SM",
        help=f"GPUs that an engine of tensorrt-rtx is for (default: {' '.join(TENSORRT_RTX.default_architectures)}); "
        "tensorrt builds for this GPU",
    )
    p.add_argument("--images", type=whole(1, 1024), default=1, metavar="N", help="most images at once (default: 1)")
    p.add_argument("--workspace", type=bytes_of, metavar="SIZE", help="most scratch memory, as 512MiB or 2GB")
    p.add_argument(
        "--hardware-compatibility",
        choices=[str(x) for x in HardwareCompatibility],
        default="none",
        help="tensorrt: run on other GPUs than this one's architecture (default: none)",
    )
    p.add_argument("--version-compatible", action="store_true", help="tensorrt: run on later versions of it too")
    p.add_argument("--timing-cache", type=Path, metavar="FILE", help="tensorrt: keep timings for the next build")


def engine_settings(a: argparse.Namespace) -> EngineSettings:
    return EngineSettings(
        architectures=tuple(a.architectures),
        images_at_once=a.images,
        workspace=a.workspace,
        hardware_compatibility=HardwareCompatibility(a.hardware_compatibility),
        version_compatible=a.version_compatible,
        timing_cache=a.timing_cache,
    )
