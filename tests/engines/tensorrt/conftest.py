"""The tiny bundle of words, as graphs and as engines."""

from pathlib import Path

import pytest

from tests.engines.tensorrt.engine_bundle import make_engine_bundle
from tests.runtime.words_bundle import make_words_bundle


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words_bundle(tmp_path_factory.mktemp("graphs") / "words")


@pytest.fixture(scope="module")
def engines(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_engine_bundle(words, tmp_path_factory.mktemp("engines") / "words")
