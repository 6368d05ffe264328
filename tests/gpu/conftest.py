"""The GPU and the bundles to check on it, which `make gpu-check` names; without a GPU the tests are skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hart_edge.engines.tensorrt.cuda import Cuda
from hart_edge.errors import EngineError

BUNDLE, REFERENCE = "HART_EDGE_GPU_BUNDLE", "HART_EDGE_GPU_REFERENCE"


@pytest.fixture(scope="session")
def gpu() -> Cuda:
    try:
        return Cuda("tensorrt")
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def bundles(gpu: Cuda) -> tuple[Path, Path]:
    """Engines for this GPU, and the graphs that they were made from."""
    if BUNDLE not in os.environ or REFERENCE not in os.environ:
        pytest.skip(f"{BUNDLE} and {REFERENCE} name no bundles; use make gpu-check GPU_BUNDLE=DIR GPU_REFERENCE=DIR")
    return Path(os.environ[BUNDLE]), Path(os.environ[REFERENCE])
