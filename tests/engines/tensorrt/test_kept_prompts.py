"""The same prompt with another seed: its context is uploaded, the text model's engine is not launched, and the picture
is the same, byte for byte. On the fake device, which computes by ONNX Runtime."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hart_edge.bundle.kept import memory_of_prompts
from hart_edge.bundle.target import Target
from hart_edge.engines.loading import load
from hart_edge.engines.registry import REGISTRY
from hart_edge.engines.tensorrt.runner import TensorRTRunner
from hart_edge.runtime.loop import DeviceRunner
from hart_edge.runtime.pipeline import Pipeline
from tests.engines.tensorrt.engine_bundle import install, make_engine_bundle
from tests.engines.tensorrt.fake_tensorrt import Context, FakeTensorRT
from tests.runtime.words_bundle import add_context_step, make_words_bundle

NEW_AND_KNOWN = ("w1 w2", "w1 w2", "w3", "w1 w2", "w3", "w4", "w1 w2", "w4")  # captured, launched and left out by turns


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs with a mask, and a step between the text model's and the first scale's."""
    return add_context_step(make_words_bundle(tmp_path_factory.mktemp("graphs") / "longer"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    return install(monkeypatch)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Counter[str]]:
    """The runs of every engine since the last call, alone and inside CUDA graphs."""
    runs, run = Counter[str](), Context._run

    def counted(context: Context) -> None:
        runs[context.engine.name] += 1
        run(context)

    def since() -> Counter[str]:
        found = Counter(runs)
        runs.clear()
        return found

    monkeypatch.setattr(Context, "_run", counted)
    return since


def pixels(pipeline: Pipeline, prompt: str, seed: int) -> bytes:
    return pipeline.generate(prompt, seed=seed).tobytes()


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("step_by_step", [False, True])
def test_a_known_prompt_is_drawn_as_a_new_one_without_the_text_model(
    words: Path,
    engines: Path,
    fake: FakeTensorRT,
    launched: Callable[[], Counter[str]],
    low_memory: bool,
    step_by_step: bool,
) -> None:
    if step_by_step:
        fake.not_capturable |= {"text_model", "transformer", "decoder"}
    pipeline, seen = load(engines, low_memory=low_memory), set[str]()
    for seed, prompt in enumerate(NEW_AND_KNOWN):
        found = pixels(pipeline, prompt, seed)
        runs = launched()
        assert (runs["text_model"], runs["transformer"], runs["decoder"]) == (int(prompt not in seen), 2, 1)
        assert found == pixels(load(words, threads=1), prompt, seed)
        assert found == pixels(load(engines, low_memory=low_memory), prompt, seed)  # a fresh pipeline
        launched()
        seen.add(prompt)
    assert isinstance(pipeline.runner, TensorRTRunner)
    assert pipeline.runner.captured() == ([] if low_memory or step_by_step else [None, 0, 1, None])


def test_other_settings_of_a_known_prompt(engines: Path, fake: FakeTensorRT) -> None:
    pipeline = load(engines)
    pixels(pipeline, "w1", 0)
    for top_k, cfg_scale in ((1, 4.5), (6, 1.5), (None, None)):
        one, other = (
            each.generate("w1", seed=3, top_k=top_k, cfg_scale=cfg_scale).tobytes()
            for each in (pipeline, load(engines))
        )
        assert one == other


def test_a_stream_of_a_known_prompt_has_all_scales(engines: Path, fake: FakeTensorRT) -> None:
    pipeline = load(engines)
    left = pipeline.stream("w1", seed=0)
    next(left)
    left.close()  # behind the first scale, so what the text model made is kept
    events, expected = list(pipeline.stream("w1", seed=4)), list(load(engines).stream("w1", seed=4))
    assert [event.preview().tobytes() for event in events] == [event.preview().tobytes() for event in expected]


def test_what_later_steps_read_of_a_prompt_is_uploaded(
    longer: Path, tmp_path: Path, fake: FakeTensorRT, launched: Callable[[], Counter[str]]
) -> None:
    """The step behind the text model's is captured for itself, and reads the ids, whose upload belongs to the step that
    is left out."""
    expected, found = load(longer, threads=1), load(make_engine_bundle(longer, tmp_path / "engines"))
    for seed, prompt in enumerate(NEW_AND_KNOWN):
        expected.forget()
        assert pixels(found, prompt, seed) == pixels(expected, prompt, seed)
    runs = launched()
    assert (runs["text_model"], runs["context"]) == (3, len(NEW_AND_KNOWN))
    assert isinstance(found.runner, TensorRTRunner)
    assert found.runner.captured() == [None, None, 0, 1, None]


def test_low_memory_opens_no_text_model_for_a_known_prompt(
    longer: Path, tmp_path: Path, fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = load(make_engine_bundle(longer, tmp_path / "engines"), low_memory=True)
    runner = pipeline.runner
    assert isinstance(runner, TensorRTRunner)
    pipeline.encode("w1")
    assert fake.opened == ["text_model"]
    before, opened = list[set[str]](), runner.library.open

    def noted(path: Path) -> Any:
        before.append(set(runner._engines))
        return opened(path)

    monkeypatch.setattr(runner.library, "open", noted)
    for seed in range(2):
        pixels(pipeline, "w1", seed)
    assert before[:2] == [set(), set()]  # the engine that encode() opened is closed before another is opened
    assert fake.opened[1:] == ["context", "transformer", "tokens", "latent", "decoder"] * 2


def test_what_was_encoded_is_known(
    longer: Path, tmp_path: Path, fake: FakeTensorRT, launched: Callable[[], Counter[str]]
) -> None:
    bundle = make_engine_bundle(longer, tmp_path / "engines")
    pipeline = load(bundle)
    context = pipeline.encode("w1 w2")
    found = pixels(pipeline, "w1 w2", 3)
    assert launched()["text_model"] == 1
    assert found == pixels(load(bundle), "w1 w2", 3)
    assert (pipeline.encode("w1 w2").tokens == context.tokens).all() and np.abs(context.tokens).max() > 0


def test_seventeen_prompts_are_one_too_many(
    engines: Path, fake: FakeTensorRT, launched: Callable[[], Counter[str]]
) -> None:
    pipeline = load(engines)
    for number in range(1, 18):
        pixels(pipeline, f"w{number}", 0)
    assert launched()["text_model"] == 17
    for number in (17, 2, 1):
        pixels(pipeline, f"w{number}", 1)
    assert launched()["text_model"] == 1
    (level,) = pipeline._kept._levels  # and no first scales
    plans = tuple(pipeline.manifest.plans.values())
    held = sum(array.nbytes for values in level.kept.values() for array in values.values())
    assert held == memory_of_prompts(plans, first_scales=False)  # which `hart-edge plan` tells


def test_what_is_kept_is_what_the_entries_say(engines: Path, fake: FakeTensorRT) -> None:
    assert isinstance(load(engines).runner, DeviceRunner)
    kept = {target: REGISTRY[target].memory.keeps_first_scales for target in Target}
    assert kept == {
        Target.CPU: True,
        Target.CUDA: True,
        Target.TENSORRT: False,
        Target.TENSORRT_RTX: False,
    }
