"""One pipeline, many threads: they draw side by side where each picture has its own buffers, else get a BusyError."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hart_edge.engines.loading import load
from hart_edge.errors import BusyError
from hart_edge.runtime.pipeline import Pipeline
from tests.engines.tensorrt.engine_bundle import install, make_engine_bundle
from tests.runtime.words_bundle import make_words_bundle

THREADS, PICTURES = 8, 100


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words_bundle(tmp_path_factory.mktemp("turns") / "words")


@pytest.fixture(scope="module")
def expected(words: Path) -> list[bytes]:
    """The picture of each seed, drawn without other threads."""
    pipeline = load(words, threads=1)
    return [picture(pipeline, seed) for seed in range(THREADS)]


def picture(pipeline: Pipeline, seed: int) -> bytes:
    image = pipeline.generate("w1 w2", seed=seed)
    assert not isinstance(image, list)
    return image.tobytes()


def in_threads(work: Callable[[int], int]) -> list[int]:
    """What every thread returns; all begin together, and an exception of one fails the test."""
    start = threading.Barrier(THREADS)

    def begin(number: int) -> int:
        start.wait(60)
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS), timeout=600))


@pytest.mark.long
def test_eight_threads_draw_with_one_pipeline(words: Path, expected: list[bytes]) -> None:
    pipeline = load(words, threads=1)  # no session is open yet: the threads open them together

    def work(number: int) -> int:
        return sum(picture(pipeline, number) == expected[number] for _ in range(PICTURES))

    assert in_threads(work) == [PICTURES] * THREADS


@pytest.mark.long
@pytest.mark.parametrize("kind", ["low_memory", "device"])
def test_a_pipeline_that_draws_one_picture_at_a_time_raises_busy_error(
    words: Path, expected: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "device":
        install(monkeypatch)
        pipeline = load(make_engine_bundle(words, tmp_path / "engines"))
    else:
        pipeline = load(words, threads=1, low_memory=True)
    busy = [0] * THREADS

    def work(number: int) -> int:
        right = 0
        for _ in range(PICTURES):
            try:
                right += picture(pipeline, number) == expected[number]
            except BusyError:
                busy[number] += 1
        return right + busy[number]

    assert in_threads(work) == [PICTURES] * THREADS  # every call drew the right picture or got a BusyError
    assert 0 < sum(busy) < THREADS * PICTURES
    assert picture(pipeline, 0) == expected[0]


def test_a_stream_keeps_its_pipeline_until_it_is_closed(words: Path, expected: list[bytes]) -> None:
    pipeline = load(words, threads=1, low_memory=True)
    stream = pipeline.stream("w1 w2", seed=1)
    event = next(stream)
    for call in (lambda: picture(pipeline, 0), lambda: next(pipeline.stream("w1"))):
        with pytest.raises(
            BusyError, match=r"found it drawing a picture, .* wait for it or close its stream, or load an"
        ):
            call()
    event.preview()  # reads the picture's own buffers, so is not busy
    (*_, last) = stream
    assert last.image is not None and last.image.tobytes() == expected[1]
    stream = pipeline.stream("w1 w2")
    next(stream)
    stream.close()
    assert picture(pipeline, 2) == expected[2]


def test_streams_of_an_ordinary_pipeline_run_side_by_side(words: Path, expected: list[bytes]) -> None:
    pipeline = load(words, threads=1)
    streams = [pipeline.stream("w1 w2", seed=seed) for seed in range(3)]
    *_, last = zip(*streams, strict=True)
    assert [event.image and event.image.tobytes() for event in last] == expected[:3]


def test_a_failed_picture_releases_the_pipeline(words: Path, expected: list[bytes]) -> None:
    pipeline = load(words, threads=1, low_memory=True)
    run = pipeline.runner.run

    def fail(*_: object) -> None:
        raise MemoryError("made up")

    pipeline.runner.run = fail  # type: ignore[method-assign]  # only of this object
    with pytest.raises(MemoryError, match=r"^not enough memory: expected .* or more in all, found .* \(made up\)"):
        picture(pipeline, 0)
    pipeline.runner.run = run  # type: ignore[method-assign]  # only of this object
    assert picture(pipeline, 0) == expected[0]
