"""The same pictures as Python, byte by byte, and the same token ids at every scale, over the same engine library."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hart_edge.bundle.manifest import Dtype, Precision
from hart_edge.bundle.settings import Speed
from hart_edge.bundle.verify import open_bundle
from hart_edge.calib.calibrate.prompts import read_prompts
from hart_edge.calib.scheme import Int8Scheme
from hart_edge.engines.loading import load
from hart_edge.export.chain import build
from hart_edge.export.options import BuildOptions
from hart_edge.export.tools import Tools
from hart_edge.runtime.context import Context
from hart_edge.runtime.loop import Array
from tests.conftest import GOLDEN, BuildOnce
from tests.runtime.native.letters_bundle import make_letters_bundle
from tests.runtime.native.library import Handle, NativeError, every_scale, texts, token_ids

THREADS = 2
SPEEDS = {speed: number for number, speed in enumerate(Speed, 1)}  # as hart_edge.h numbers them
PROMPTS = read_prompts()[:20]
SEEDS = [(2**64 - 1) // 19 * k for k in range(20)]  # from 0 to the largest


class Watched:
    """A runner that records the token ids that it computes."""

    def __init__(self, runner: Any) -> None:
        self.runner, self.indices = runner, list[list[int]]()

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        self.runner.run(graph, inputs, outputs)
        if graph == "tokens":
            self.indices.append(outputs["indices"].ravel().tolist())


def test_prompts_that_were_drawn_before(native: Any, int8_bundle: Path) -> None:
    """What is kept of a prompt changes no picture: not its next one, nor one of another prompt."""
    python = load(int8_bundle, threads=THREADS)
    opened = Handle(native, int8_bundle, threads=THREADS)
    limited = Handle(
        native, int8_bundle, threads=THREADS, memory_limit=opened.info().memory
    )  # no room for first scales
    prompts = [PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[0], *PROMPTS[2:19], PROMPTS[0], PROMPTS[18], PROMPTS[18]]
    for seed, prompt in enumerate(prompts):
        python.forget()
        expected = np.asarray(python.generate(prompt, seed=seed, cfg_scale=seed % 3)).tobytes()
        for handle in (opened, limited):
            assert handle.generate(prompt, seed=seed, cfg_scale=float(seed % 3)).tobytes() == expected, (prompt, seed)
    opened.close()
    limited.close()


def test_every_speed(native: Any, int8_bundle: Path) -> None:
    """From one bundle, in turn, with a prompt that another speed has drawn before."""
    python, handle = load(int8_bundle, threads=THREADS), Handle(native, int8_bundle, threads=THREADS)
    info = handle.info()
    assert (info.speed, info.speeds) == (SPEEDS[Speed.EXACT], sum(1 << number for number in SPEEDS.values()))
    for seed, speed in enumerate((*Speed, *reversed(Speed))):
        picture = handle.generate(PROMPTS[seed % 2], seed=seed, speed=SPEEDS[speed])
        assert picture.tobytes() == np.asarray(python.generate(PROMPTS[seed % 2], seed=seed, speed=speed)).tobytes()
    assert handle.generate(PROMPTS[0], seed=0).tobytes() == handle.generate(PROMPTS[0], seed=0, speed=1).tobytes()
    handle.close()


def test_a_speed_that_there_is_not(native: Any, int8_bundle: Path) -> None:
    handle = Handle(native, int8_bundle, threads=THREADS)
    for speed in (-1, 4):
        with pytest.raises(NativeError, match=rf"speed: expected HART_EDGE_SPEED_EXACT, .* found {speed}$"):
            handle.generate(PROMPTS[0], speed=speed)
    handle.close()


@pytest.mark.parametrize("precision", [pytest.param(Precision.FP32, marks=pytest.mark.slow), Precision.INT8])
def test_twenty_prompts_and_seeds(native: Any, precision: Precision, request: pytest.FixtureRequest) -> None:
    bundle: Path = request.getfixturevalue(f"{precision}_bundle")
    python = load(bundle, threads=THREADS)
    python.runner = watched = Watched(python.runner)
    handle = Handle(native, bundle, threads=THREADS)
    assert len(set(PROMPTS)) == len(set(SEEDS)) == 20
    for prompt, seed in zip(PROMPTS, SEEDS, strict=True):
        indices: list[list[int]] = []
        callback = every_scale(lambda progress, into=indices: into.append(token_ids(progress)))
        picture = handle.generate(prompt, seed=seed, on_scale=callback)
        watched.indices.clear()
        expected = np.asarray(python.generate(prompt, seed=seed))
        assert indices == watched.indices and [len(each) for each in indices] == [1, 4, 9, 16, 25, 36, 64]
        assert picture.tobytes() == expected.tobytes(), (prompt, seed)
    handle.close()


@pytest.mark.parametrize(
    "changed",
    [{"cfg_scale": 0.0}, {"cfg_scale": 100.0}, {"top_k": 1}, {"top_p": 0.2}, {"smooth": 0}, {"smooth": 1, "top_k": 7}],
)
def test_settings(native: Any, int8_bundle: Path, changed: dict[str, Any]) -> None:
    handle = Handle(native, int8_bundle, threads=THREADS)
    picture = handle.generate("a red heart", seed=3, **changed)
    if "smooth" in changed:
        changed = {**changed, "smooth": bool(changed["smooth"])}
    expected = load(int8_bundle, threads=THREADS).generate("a red heart", seed=3, **changed)
    assert picture.tobytes() == expected.tobytes()
    handle.close()


@pytest.mark.filterwarnings("ignore:the prompt has")
def test_a_list_of_prompts_and_its_previews(native: Any, tmp_path: Path) -> None:
    """Picture k of a list equals that of its prompt and seed, in C as in Python; so do the previews."""
    bundle = make_letters_bundle(tmp_path / "tiny")
    python, handle = load(bundle), Handle(native, bundle)
    prompts, seeds = ["ab", "zebra crossing", "ab"], [5, 0, 2**64 - 1]
    seen: list[tuple[int, int, bytes]] = []

    def keep(progress: Any) -> None:
        preview = bytes(progress.preview[: progress.width * progress.height * 3])
        seen.append((progress.picture, progress.scale, preview))

    params = handle.params(count=3, prompts=texts(prompts), seeds=(ctypes.c_uint64 * 3)(*seeds), previews=1)
    params.on_scale = every_scale(keep)
    together = handle.draw(params)
    expected = [
        (picture, event.scale, event.preview().tobytes())
        for picture, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
        for event in python.stream(prompt, seed=seed)
    ]
    assert seen == expected and len(seen) == 6
    assert [each.tobytes() for each in together] == [preview for _, scale, preview in expected if scale == 1]
    for picture, prompt, seed in zip(together, prompts, seeds, strict=True):
        assert picture.tobytes() == handle.generate(prompt, seed=seed).tobytes()
    handle.close()


@pytest.mark.parametrize("small_cache", [False, True])
def test_a_context_array(native: Any, build_once: BuildOnce, tools: Tools, small_cache: bool, tmp_path: Path) -> None:
    """A bundle without a text model: T 10, D 56; at fp32, and at int8 with keys in INT8, values in FP16."""
    random = np.random.default_rng(0)
    tokens = random.standard_normal((2, 10, 56)).astype(np.float32)
    mask = np.stack([np.arange(10) < 6, np.arange(10) < 3])
    bundle = build_once(GOLDEN / "plain", Precision.FP32)
    if small_cache:
        contexts, bundle = tmp_path / "contexts.npz", tmp_path / "small-cache"
        np.savez(contexts, context=tokens, context_mask=mask)
        options = BuildOptions(GOLDEN / "plain", bundle, contexts=contexts, int8_scheme=Int8Scheme.STATIC)
        build(replace(options, small_cache_from=0), tools=tools)
        buffers = open_bundle(bundle).manifest.plan.buffers
        assert (buffers["null_key.0.1"].dtype, buffers["value.0.1"].dtype) == (Dtype.INT8, Dtype.FLOAT16)
    python, handle = load(bundle, threads=THREADS), Handle(native, bundle, threads=THREADS)
    expected = python.generate([Context(tokens[k], mask[k]) for k in range(2)], seed=[4, 5])
    params = handle.params(
        count=2,
        contexts=tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
        context_masks=mask.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)),
        seeds=(ctypes.c_uint64 * 2)(4, 5),
    )
    pictures = handle.draw(params)
    assert isinstance(expected, list)
    assert [each.tobytes() for each in pictures] == [each.tobytes() for each in expected]
    assert handle.info().takes_prompt == 0
    handle.close()
