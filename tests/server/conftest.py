"""The tiny bundle, and a server of it that the tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.words_bundle import make_words_bundle
from tests.server.running import Server, serving


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of two scales and 32 pixels that knows the words w1 to w31."""
    return make_words_bundle(tmp_path_factory.mktemp("words") / "tiny")


@pytest.fixture(scope="session")
def server(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with two workers; tests leave it as it is."""
    with serving(
        tmp_path_factory.mktemp("server"), words, workers=2, queue=8, limits={"read": 2.0, "write": 2.0}
    ) as it:
        yield it
