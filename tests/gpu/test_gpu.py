"""On a real GPU: the CUDA binding, engines against ONNX Runtime, and pictures that are the same every time."""

import json
from pathlib import Path

import numpy as np
import pytest

from hart_edge.checks.gpu_parity import sample_prompt
from hart_edge.cli.main import main
from hart_edge.engines.loading import load
from hart_edge.engines.tensorrt.cuda import Cuda

pytestmark = pytest.mark.gpu


def test_copies(gpu: Cuda) -> None:
    address = gpu.allocate(4096, "a test")
    given, found = np.arange(1024, dtype=np.float32), np.zeros(1024, np.float32)
    gpu.upload(address, given)
    gpu.download(address, found)
    assert (found == given).all()
    gpu.begin_capture()
    gpu.clear(address, 2048)
    graph = gpu.end_capture()
    gpu.download(address, found)
    assert (found == given).all()  # captured work does not run before its launch
    gpu.launch(graph)
    gpu.download(address, found)
    assert (found[:512] == 0).all() and (found[512:] == given[512:]).all()
    gpu.destroy(graph)
    gpu.free(address)


def test_engines_against_onnx_runtime(bundles: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    engines, graphs = bundles
    status = main(["doctor", "--gpu-check", str(engines), "--reference", str(graphs), "--pictures", "3", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert status == 0, [each for each in (*found["graphs"], *found["pictures"]) if not each["ok"]]


def test_captured_scales_draw_the_same_as_single_steps(bundles: tuple[Path, Path]) -> None:
    pipeline = load(bundles[0])
    prompt = sample_prompt(pipeline.manifest, "man astronaut")
    drawn = []
    for _ in range(3):  # run by steps, captured, launched
        pipeline.forget()
        drawn.append(np.asarray(pipeline.generate(prompt, seed=7)))
    assert (drawn[0] == drawn[1]).all() and (drawn[1] == drawn[2]).all()
    low = load(bundles[0], low_memory=True)
    assert (np.asarray(low.generate(prompt, seed=7)) == drawn[0]).all()


def test_a_known_prompt_draws_the_same_as_a_new_one(bundles: tuple[Path, Path]) -> None:
    """Without the text model, where the bundle has one; at last among captured scales."""
    pipeline = load(bundles[0])
    known, other = (sample_prompt(pipeline.manifest, words) for words in ("man astronaut", "red heart"))
    expected = {seed: np.asarray(load(bundles[0]).generate(known, seed=seed)) for seed in (7, 8)}
    for prompt, seed in ((known, 7), (known, 8), (other, 7), (known, 7), (known, 8)):
        found = np.asarray(pipeline.generate(prompt, seed=seed))
        assert prompt is other or (found == expected[seed]).all()
