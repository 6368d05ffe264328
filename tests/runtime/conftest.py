"""The shipped model, opened once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hart_edge.engines.loading import load
from hart_edge.runtime.pipeline import Pipeline


@pytest.fixture(scope="session")
def shipped(int8_bundle: Path) -> Pipeline:
    return load(int8_bundle)
