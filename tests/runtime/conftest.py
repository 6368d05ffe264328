"""The shipped model, opened once."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.pipeline import Pipeline, load


@pytest.fixture(scope="session")
def shipped(int8_bundle: Path) -> Pipeline:
    return load(int8_bundle)
