"""The same prompt with another seed needs no text model, and the picture is the same, byte for byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from hart_edge.bundle.verify import open_bundle
from hart_edge.engines.loading import load
from hart_edge.engines.onnxruntime.runner import OnnxRuntimeRunner
from hart_edge.errors import InputError
from hart_edge.runtime.loop import Array
from hart_edge.runtime.pipeline import Pipeline
from tests.runtime.words_bundle import make_words_bundle


class Counting(OnnxRuntimeRunner):
    """Counts the runs of every graph."""

    def __init__(self, folder: Path) -> None:
        self.runs: Counter[str] = Counter()
        super().__init__(open_bundle(folder))

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self.runs[str(graph)] += 1
        super().run(graph, inputs, outputs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_words_bundle(tmp_path / "words")


def pixels(pipeline: Pipeline, prompt: str, seed: int) -> bytes:
    return pipeline.generate(prompt, seed=seed).tobytes()


def counting(folder: Path, *, low_memory: bool = False) -> tuple[Pipeline, Counting]:
    runner = Counting(folder)
    return Pipeline(open_bundle(folder), runner, low_memory=low_memory), runner


@pytest.mark.parametrize("low_memory", [False, True])
def test_another_seed_runs_no_text_model(folder: Path, low_memory: bool) -> None:
    pipeline, runner = counting(folder, low_memory=low_memory)
    expected = [pixels(load(folder), "w1 w2", seed) for seed in (1, 2)]
    assert [pixels(pipeline, "w1 w2", seed) for seed in (1, 2)] == expected
    assert runner.runs["text_model"] == 1
    assert pixels(pipeline, "w1 w2", 1) == expected[0]
    assert (runner.runs["text_model"], runner.runs["decoder"]) == (1, 3)


def test_sixteen_prompts_are_kept_and_the_oldest_goes(folder: Path) -> None:
    pipeline, runner = counting(folder)
    prompts = [f"w{number}" for number in range(1, 18)]
    for prompt in prompts[:16]:
        pixels(pipeline, prompt, 0)
    pixels(pipeline, prompts[0], 1)  # used again, so the second is now the oldest
    assert runner.runs["text_model"] == 16
    pixels(pipeline, prompts[16], 0)
    pixels(pipeline, prompts[0], 2)
    assert runner.runs["text_model"] == 17
    pixels(pipeline, prompts[1], 1)
    assert runner.runs["text_model"] == 18


def test_a_stream_that_is_closed_keeps_what_it_read(folder: Path) -> None:
    pipeline, runner = counting(folder)
    stream = pipeline.stream("w3", seed=1)
    next(stream)
    stream.close()
    pixels(pipeline, "w3", 1)
    assert runner.runs["text_model"] == 1


def test_encode_reads_a_prompt_once(int8_bundle: Path) -> None:
    pipeline, runner = counting(int8_bundle)
    context = pipeline.encode("red heart")
    assert (context.tokens.shape, context.tokens.dtype) == ((24, 192), np.float32)
    assert context.mask.dtype == bool and 0 < context.mask.sum() < 24
    assert pixels(pipeline, "red heart", 3) == pixels(load(int8_bundle), "red heart", 3)
    assert runner.runs["text_model"] == 1
    context.tokens[...] = 0  # a copy: what is kept stays as it is
    assert np.abs(pipeline.encode("red heart").tokens).max() > 0.1


def test_a_bundle_without_a_text_model_encodes_nothing(plain_bundle: Path) -> None:
    with pytest.raises(InputError, match="holds no text model: expected one that reads prompts"):
        load(plain_bundle).encode("red heart")
