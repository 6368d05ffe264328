"""Callbacks, cancelling from every place that may do it, and one handle used by two threads."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from ctypes import POINTER, sizeof
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.native.letters_bundle import make_letters_bundle
from tests.runtime.native.library import Handle, Image, NativeError, Progress, Status, every_scale


@pytest.fixture(scope="module")
def tiny(native: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Handle]:
    handle = Handle(native, make_letters_bundle(tmp_path_factory.mktemp("tiny") / "tiny"))
    yield handle
    handle.close()


@pytest.fixture(scope="module")
def shipped(native: Any, int8_bundle: Path) -> Iterator[Handle]:
    handle = Handle(native, int8_bundle)
    yield handle
    handle.close()


def failure(call: Any, *arguments: Any, **more: Any) -> NativeError:
    with pytest.raises(NativeError) as caught:
        call(*arguments, **more)
    return caught.value


def test_callbacks_report_every_scale(shipped: Handle) -> None:
    seen: list[tuple[int, ...]] = []

    def keep(each: Any) -> None:
        assert each.struct_size == sizeof(Progress) and not each.preview
        seen.append((each.picture, each.pictures, each.scale, each.scales, each.tokens, each.width, each.height))

    plain = shipped.generate("a red heart", seed=3)
    told = shipped.generate("a red heart", seed=3, on_scale=every_scale(keep))
    assert told.tobytes() == plain.tobytes()
    assert seen == [(0, 1, scale, 7, side * side, 128, 128) for scale, side in enumerate((1, 2, 3, 4, 5, 6, 8))]


@pytest.mark.parametrize("at", [0, 3, 6])
def test_a_callback_cancels(shipped: Handle, at: int) -> None:
    seen: list[int] = []

    def stop(each: Any) -> int:
        seen.append(each.scale)
        return -1 if each.scale == at else 0

    cancelled = failure(shipped.generate, "a red heart", on_scale=every_scale(stop))
    assert (cancelled.status, cancelled.message) == (Status.CANCELLED, "cancelled")
    assert seen == list(range(at + 1))
    assert shipped.generate("a red heart").shape == (128, 128, 3)


def test_another_thread_cancels(shipped: Handle) -> None:
    """At any point of a picture. The next picture is complete, and a cancel that comes too late does nothing."""
    whole = shipped.generate("a red heart", seed=1)
    cancelled = 0
    for trial in range(8):
        timer = threading.Timer(0.004 * (trial + 1), shipped.cancel)
        timer.start()
        try:
            assert shipped.generate("a red heart", seed=1).tobytes() == whole.tobytes()
        except NativeError as refused:
            assert (refused.status, refused.message) == (Status.CANCELLED, "cancelled")
            cancelled += 1
        timer.join()
    assert cancelled >= 4
    shipped.cancel()
    assert shipped.generate("a red heart", seed=1).tobytes() == whole.tobytes()


def test_cancelling_from_a_callback_and_from_a_signal(shipped: Handle) -> None:
    assert failure(shipped.generate, "ab", on_scale=every_scale(lambda _: shipped.cancel())).status == Status.CANCELLED
    before = signal.signal(signal.SIGALRM, lambda *_: shipped.cancel())
    try:
        # Python runs a signal handler between two callbacks, where a C program would run it at once.
        cancelled = failure(shipped.generate, "ab", on_scale=every_scale(lambda _: signal.raise_signal(signal.SIGALRM)))
    finally:
        signal.signal(signal.SIGALRM, before)
    assert cancelled.status == Status.CANCELLED


def test_a_busy_handle_returns_busy_and_finishes_its_picture(native: Any, tiny: Handle) -> None:
    inside: list[int] = []
    images = (POINTER(Image) * 1)()

    def again(_: Any) -> None:
        inside.append(native.hart_edge_generate(tiny.pointer, tiny.params(prompt=b"cd"), images))
        assert tiny.info().image_size == 32

    picture = tiny.generate("ab", on_scale=every_scale(again))
    assert inside == [Status.BUSY, Status.BUSY] and not images[0]
    assert picture.tobytes() == tiny.generate("ab").tobytes()


def test_two_threads_on_one_handle_and_on_two(native: Any, shipped: Handle, int8_bundle: Path) -> None:
    """With one handle each call gives a whole picture or BUSY; with two handles both draw at the same time."""
    expected = {seed: shipped.generate("a red heart", seed=seed).tobytes() for seed in (1, 2)}
    other = Handle(native, int8_bundle)
    for handles in ((shipped, shipped), (shipped, other)):
        outcomes: dict[int, list[Any]] = {1: [], 2: []}

        def work(handle: Handle, seed: int, into: list[Any]) -> None:
            for _ in range(3):
                try:
                    into.append(handle.generate("a red heart", seed=seed).tobytes())
                except NativeError as refused:
                    into.append(refused.status)
                    time.sleep(0.01)

        threads = [threading.Thread(target=work, args=(handles[k], k + 1, outcomes[k + 1])) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for seed, found in outcomes.items():
            assert set(found) <= {expected[seed], Status.BUSY}
        drawn = [each for found in outcomes.values() for each in found if each != Status.BUSY]
        assert len(drawn) == 6 if handles[0] is not handles[1] else len(drawn) >= 3
    other.close()


def test_closing_while_graphs_still_load(native: Any, int8_bundle: Path) -> None:
    for _ in range(3):
        Handle(native, int8_bundle).close()
