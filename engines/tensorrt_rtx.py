"""TensorRT-RTX: the engines of the target tensorrt-rtx, built on any machine for desktop GPUs."""

from __future__ import annotations

from engines.capabilities import TENSORRT_RTX
from engines.tensorrt_build import TensorRTBuilder

BUILDER = TensorRTBuilder(TENSORRT_RTX)
