"""What tests of tiny models and of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

from hart_edge.cli import main
from runtime.manifest import Precision
from tests import one_thread as threads
from tests.conftest import GOLDEN, BuildOnce
from tests.hart_edge.command_line import Run

one_thread = threads.one_thread


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """main() in an empty folder: (exit status, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(each) for each in arguments])
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


@pytest.fixture(scope="module")
def plain_bundle(build_once: BuildOnce) -> Path:
    """A bundle that takes a context array."""
    return build_once(GOLDEN / "plain", Precision.FP32)
