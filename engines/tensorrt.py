"""TensorRT 10.x and 11.x: the engines of the target tensorrt, built on the GPU that runs them."""

from __future__ import annotations

from engines.capabilities import TENSORRT
from engines.tensorrt_build import TensorRTBuilder

BUILDER = TensorRTBuilder(TENSORRT)
