"""The same prompt with another seed needs neither text model nor first scale, and the picture is the same, byte for
byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from hart_edge.bundle import kept
from hart_edge.bundle.settings import Settings, Speed
from hart_edge.bundle.verify import open_bundle
from hart_edge.engines.loading import load
from hart_edge.engines.onnxruntime.runner import OnnxRuntimeRunner
from hart_edge.errors import InputError
from hart_edge.runtime.context import Context
from hart_edge.runtime.loop import Array
from hart_edge.runtime.pipeline import Pipeline
from tests.runtime.words_bundle import make_words_bundle


class Counting(OnnxRuntimeRunner):
    """Counts the runs of every graph."""

    def __init__(self, folder: Path) -> None:
        self.runs: Counter[str] = Counter()
        super().__init__(open_bundle(folder))

    def since(self) -> Counter[str]:
        """The runs since the last call."""
        runs, self.runs = self.runs, Counter()
        return runs

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


def test_another_seed_and_other_settings_run_no_first_scale(folder: Path) -> None:
    pipeline, runner = counting(folder)
    scales = len(pipeline.manifest.patch_nums)
    pixels(pipeline, "w1 w2", 1)
    first = runner.since()
    assert (first["text_model"], first["transformer"]) == (1, scales)
    for seed, settings in ((2, Settings()), (1, Settings(cfg_scale=1.5)), (3, Settings(top_k=1, smooth=True))):
        found = pipeline.generate("w1 w2", seed=seed, **settings).tobytes()
        again = runner.since()
        assert (again["text_model"], again["transformer"]) == (0, scales - 1)
        assert found == load(folder).generate("w1 w2", seed=seed, **settings).tobytes()


def test_a_stream_of_a_known_prompt_has_all_scales(folder: Path) -> None:
    pipeline, _ = counting(folder)
    expected = [event.preview().tobytes() for event in load(folder).stream("w1", seed=4)]
    pixels(pipeline, "w1", 0)
    assert [event.preview().tobytes() for event in pipeline.stream("w1", seed=4)] == expected


def test_low_memory_keeps_no_first_scale(folder: Path) -> None:
    pipeline, runner = counting(folder, low_memory=True)
    scales = len(pipeline.manifest.patch_nums)
    for seed in (1, 2):
        pixels(pipeline, "w1", seed)
        assert runner.since()["transformer"] == scales


def test_first_scales_of_few_prompts_are_kept_where_they_are_large(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "MOST_BYTES", 1)
    pipeline, runner = counting(folder)
    scales = len(pipeline.manifest.patch_nums)
    assert kept.most_first_scales([pipeline.manifest.plan]) == 1
    for prompt in ("w1", "w2", "w1"):
        pixels(pipeline, prompt, 0)
    found = runner.since()
    assert (found["text_model"], found["transformer"]) == (2, 3 * scales)  # the context of the first was still there
    pixels(pipeline, "w1", 1)
    assert runner.since()["transformer"] == scales - 1


def test_a_prompt_that_was_forgotten_is_new(folder: Path) -> None:
    pipeline, runner = counting(folder)
    pixels(pipeline, "w1", 0)
    pipeline.forget()
    runner.since()
    pixels(pipeline, "w1", 1)
    assert runner.since()["text_model"] == 1


def test_a_context_is_a_prompt_too(plain_bundle: Path) -> None:
    pipeline, runner = counting(plain_bundle)
    m = pipeline.manifest
    tokens = np.random.default_rng(0).standard_normal((m.context_tokens, m.context_dim)).astype(np.float32)
    mask = np.ones(m.context_tokens, np.bool_)
    images = [pipeline.generate(Context(tokens, mask), seed=seed).tobytes() for seed in (1, 2)]
    assert runner.since()["transformer"] == 2 * len(m.patch_nums) - 1
    assert images == [load(plain_bundle).generate(Context(tokens, mask), seed=seed).tobytes() for seed in (1, 2)]
    mask[0] = False
    pipeline.generate(Context(tokens, mask), seed=1)
    assert runner.since()["context"] == 1


def test_what_is_kept_serves_every_speed(int8_bundle: Path) -> None:
    """A prompt that was drawn at one speed is known at the others, and the pictures are those of a new pipeline."""
    pipeline = load(int8_bundle)
    for speed in (*Speed, *reversed(Speed)):
        again = pipeline.generate("a red heart", seed=3, speed=speed)
        assert again.tobytes() == load(int8_bundle).generate("a red heart", seed=3, speed=speed).tobytes(), speed


def test_what_is_kept_is_what_the_prompt_decides(int8_bundle: Path) -> None:
    """Keys, values and hidden states of the first scale: nothing that a later step would not read."""
    plans = list(open_bundle(int8_bundle).manifest.plans.values())
    plan = plans[0]
    steps = kept.steps_of_prompt(plan)
    assert [(step.graph, step.scale) for step in plan.steps[:steps]] == [
        ("text_model", None),
        ("context", None),
        ("transformer", 0),
    ]
    names = kept.kept_names(plans, steps)
    read = {name for each in plans for step in each.steps[steps:] for name in step.inputs.values()}
    assert {"hidden.0", "key.0.0", "value.0.0", "last_position"} <= set(names)
    assert {name for name in names if plan.buffers[name].cache is None} <= read
    one, all_of_them = (kept.memory_of_prompts(plans, first_scales=each) for each in (False, True))
    assert 0 < one < all_of_them <= one + kept.MOST_BYTES


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
