"""Handles in a forked child, which may close them, draw with them, or gets an error. No child lives long."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.bundle.corrupt_manifests import put
from tests.forked import forked
from tests.runtime.native.letters_bundle import make_letters_bundle
from tests.runtime.native.library import Handle, NativeError, Status, every_scale

SECONDS = 60


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_letters_bundle(tmp_path_factory.mktemp("pristine") / "tiny")


@pytest.fixture
def drawn(native: Any, pristine: Path) -> Handle:
    """A handle that has drawn, so that its sessions have threads."""
    handle = Handle(native, pristine, threads=2, wait_for_all=1)
    handle.generate("ab")
    return handle


def test_a_child_closes_an_inherited_handle(drawn: Handle) -> None:
    expected = drawn.generate("ab").tobytes()
    assert forked(drawn.close) == 0
    assert drawn.generate("ab").tobytes() == expected
    drawn.close()


def test_a_child_draws_the_same_picture_and_closes(drawn: Handle) -> None:
    expected = drawn.generate("ab", seed=5).tobytes()
    before = drawn.info().name

    def work() -> None:
        drawn.cancel()  # nothing runs in this process
        for _ in range(2):
            assert drawn.generate("ab", seed=5).tobytes() == expected
        assert drawn.info().name == before
        assert forked(lambda: drawn.generate("ab")) == 0  # in a child of the child
        drawn.close()

    assert forked(work) == 0
    assert drawn.generate("ab", seed=5).tobytes() == expected
    drawn.close()


def test_a_child_forked_in_a_callback_gets_an_error_and_then_draws(drawn: Handle) -> None:
    """The fork happens during a picture: the child's copy of that call ends with an error, and frees its handle."""
    children: list[int] = []

    def fork(progress: Any) -> int:
        if progress.scale == 0:
            children.append(os.fork())
            if children[0] == 0:
                signal.alarm(SECONDS)
        return 0

    try:
        drawn.generate("ab", on_scale=every_scale(fork))
    except NativeError as error:
        if children[0] != 0:
            raise
        told = error.status == Status.ENGINE_ERROR and "found a fork of it" in error.message
        os._exit(0 if told and drawn.generate("ab").shape == (32, 32, 3) else 1)
    finally:
        if children[0] == 0:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    drawn.close()


def test_a_bundle_that_was_rebuilt_is_refused_in_the_child(native: Any, pristine: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pristine, tmp_path / "tiny"))
    handle = Handle(native, folder, wait_for_all=1)
    handle.generate("ab")
    put("name", value="other-2")(folder)

    def work() -> None:
        with pytest.raises(NativeError, match="verified before the fork, found another") as no:
            handle.generate("ab")
        assert no.value.status == Status.BUNDLE_ERROR
        handle.close()

    assert forked(work) == 0
    assert handle.generate("ab").shape == (32, 32, 3)  # this process has everything open
    handle.close()
