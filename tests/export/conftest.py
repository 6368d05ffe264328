"""Fixtures that tests of builds share. Their models are tiny, so one thread is enough."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hart_edge.bundle.manifest import Precision
from tests import one_thread as threads
from tests.conftest import BuildOnce
from tests.export.small_checkpoint import CHECKPOINT
from tests.reference.tiny_hart import tiny_context

one_thread = threads.one_thread


@pytest.fixture(scope="session")
def small_bundle(build_once: BuildOnce) -> Path:
    """A golden checkpoint at fp32. Now that its graphs have been traced, building it again takes a second."""
    return build_once(CHECKPOINT, Precision.FP32)


@pytest.fixture
def contexts(tmp_path: Path) -> Path:
    """Two calibration contexts of that checkpoint."""
    context, mask = tiny_context({"context_token": 12, "context_dim": 48}, "right", (7, 3), seed=1)
    path = tmp_path / "given" / "contexts.npz"
    path.parent.mkdir()
    np.savez(path, context=context, context_mask=mask)
    return path
