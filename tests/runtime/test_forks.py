"""Pipelines in forked and spawned children, and pickled. No child lives long."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hart_edge
from hart_edge.bundle.target import Target
from hart_edge.bundle.verify import open_bundle
from hart_edge.engines.loading import load
from hart_edge.engines.onnxruntime.runner import OnnxRuntimeRunner
from hart_edge.errors import EngineError
from hart_edge.runtime.pipeline import Pipeline
from tests.engines.tensorrt.engine_bundle import install, make_engine_bundle
from tests.forked import forked
from tests.runtime.words_bundle import make_words_bundle

SECONDS = 60


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words_bundle(tmp_path_factory.mktemp("forks") / "words")


@pytest.fixture
def drawn(words: Path) -> Pipeline:
    """A pipeline that has drawn, so that all its sessions are open and have threads."""
    pipeline = load(words, threads=2)
    pipeline.generate("w1 w2", seed=3)
    return pipeline


def picture(pipeline: Pipeline) -> bytes:
    image = pipeline.generate("w1 w2", seed=3)
    assert not isinstance(image, list)
    return image.tobytes()


@pytest.mark.long
def test_a_child_draws_the_same_picture(drawn: Pipeline) -> None:
    expected = picture(drawn)

    def work() -> None:
        assert isinstance(drawn.runner, OnnxRuntimeRunner)
        assert drawn.runner.open_graphs == frozenset()
        assert picture(drawn) == picture(drawn) == expected
        assert forked(lambda: picture(drawn)) == 0  # in a child of the child

    assert forked(work) == 0
    assert picture(drawn) == expected


def test_a_child_drops_an_inherited_pipeline(words: Path) -> None:
    held = [load(words, threads=2)]
    expected = picture(held[0])

    def work() -> None:
        held.clear()
        assert picture(load(words)) == expected

    assert forked(work) == 0
    assert picture(held[0]) == expected


def test_a_child_drops_a_pipeline_that_it_has_drawn_with(words: Path) -> None:
    held = [load(words, threads=2)]
    expected = picture(held[0])

    def work() -> None:
        assert picture(held[0]) == expected
        held.clear()

    assert forked(work) == 0


@pytest.mark.long
def test_a_child_unloads_a_pipeline_and_finishes_an_inherited_stream(words: Path) -> None:
    pipeline = load(words, threads=2, low_memory=True)
    expected = picture(pipeline)
    stream = pipeline.stream("w1 w2", seed=3)
    next(stream)

    def work() -> None:
        assert isinstance(pipeline.runner, OnnxRuntimeRunner)
        pipeline.runner.unload("decoder")
        assert picture(pipeline) == expected  # not busy with the parent's stream
        (*_, last) = stream
        assert last.image is not None and last.image.tobytes() == expected

    assert forked(work) == 0
    (*_, last) = stream
    assert last.image is not None and last.image.tobytes() == expected


@pytest.mark.long
def test_an_interpreter_ends_cleanly_in_a_child(words: Path) -> None:
    """`python -c` forks, and both processes exit, which frees everything."""
    program = (
        "import os, signal, sys, hart_edge\n"
        "pipeline = hart_edge.load(sys.argv[1], threads=2)\n"
        "pipeline.generate('w1')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.alarm(60)\n"
        "    sys.exit(0)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program, words], env=environment, capture_output=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def draw_by_name(words: Path, answers: SimpleQueue[bytes]) -> None:
    answers.put(hart_edge.generate("w1 w2", seed=3, bundle=words).tobytes())  # type: ignore[union-attr]  # one prompt


def draw_with(pipeline: Pipeline, answers: SimpleQueue[bytes]) -> None:
    answers.put(picture(pipeline))


def answer(method: str, work: Callable[..., None], argument: Any) -> bytes:
    context: Any = multiprocessing.get_context(method)
    answers = context.SimpleQueue()
    child = context.Process(target=work, args=(argument, answers), daemon=True)
    child.start()
    child.join(SECONDS)
    assert child.exitcode == 0
    found: bytes = answers.get()
    return found


@pytest.mark.long
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_generate_works_in_processes_of_multiprocessing(words: Path, method: str) -> None:
    expected = hart_edge.generate("w1 w2", seed=3, bundle=words)
    assert not isinstance(expected, list)
    assert answer(method, draw_by_name, words) == expected.tobytes()


@pytest.mark.long
def test_a_pipeline_is_passed_to_a_process(drawn: Pipeline) -> None:
    assert answer("spawn", draw_with, drawn) == picture(drawn)


def test_a_pipeline_pickles_as_its_folder_and_options(words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(words.parent)
    pipeline = load(words.name, threads=2, low_memory=True)
    data = pickle.dumps(pipeline)
    monkeypatch.chdir("/")
    assert len(data) < 2000
    for other in (pickle.loads(data), copy.deepcopy(pipeline)):
        assert other is not pipeline and other.bundle.folder == words.resolve() and other.low_memory
        assert other.runner._options.intra_op_num_threads == 2
        assert picture(other) == picture(pipeline)


def test_events_pickle(drawn: Pipeline) -> None:
    first, last = pickle.loads(pickle.dumps(list(drawn.stream("w1 w2", seed=3))))
    assert last.image.tobytes() == picture(drawn)
    assert np.asarray(first.preview()).shape == (32, 32, 3)


def test_a_pipeline_made_from_parts_says_why_it_does_not_pickle(words: Path) -> None:
    bundle = open_bundle(words)
    with pytest.raises(TypeError, match=r"expected a pipeline from hart_edge\.load\(\), found one made of parts"):
        pickle.dumps(Pipeline(bundle, OnnxRuntimeRunner(bundle)))


def test_a_child_refuses_to_use_a_gpu_and_leaves_it_alone(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = install(monkeypatch)
    held = [load(make_engine_bundle(words, tmp_path / "engines", Target.TENSORRT_RTX))]
    expected, stream = picture(held[0]), held[0].stream("w1 w2", seed=3)
    next(stream)

    def work() -> None:
        calls = len(fake.cuda.log)
        for call in (
            lambda: picture(held[0]),
            lambda: next(stream),
            lambda: held[0].decode(np.zeros((1, 4, 2, 2), "f4")),
        ):
            with pytest.raises(
                EngineError, match=r"found a fork of it, where CUDA cannot be used; start processes with"
            ):
                call()
        stream.close()
        held.clear()
        assert len(fake.cuda.log) == calls

    assert forked(work) == 0
    stream.close()
    assert picture(held[0]) == expected
