"""Statistics from the calls of a loop: each call of a prompt has its own, and a tensor that overflows is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from hart_edge.bundle.manifest import Target
from hart_edge.calib.calibrate.collector import Collector, calibrated_tensors
from hart_edge.calib.scheme import Scheme
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import BuildError
from tests.calib.make_graphs import conv_model, initializer, linear_model, write_model

CPU = REGISTRY.library(Target.CPU)


def constant_input(value: float) -> dict[str, np.ndarray]:
    x = np.zeros((1, 64), np.float32)
    x[0, 0] = value
    return {"x": x}


def test_calibrated_tensors() -> None:
    assert calibrated_tensors(linear_model(), Scheme.U8S8) == ["x", "r"]
    assert calibrated_tensors(conv_model(), Scheme.U8S8) == ["x", "h", "y"]  # outputs of convolutions too
    for scheme in (Scheme.FLOAT32, Scheme.FLOAT16_WEIGHTS, Scheme.INT8_WEIGHTS):
        assert calibrated_tensors(linear_model(), scheme) == []


def test_statistics_of_each_call_of_a_prompt_are_separate(tmp_path: Path) -> None:
    """Two calls per prompt, three prompts: the extremes of each call are averaged over prompts, the widest count."""
    model = linear_model()
    calls = [[(-1.0), (4.0)], [(-3.0), (2.0)], [(-2.0), (6.0)]]
    paths = write_model(tmp_path, model)
    exact = CPU.open(paths["small"])
    paths["other"] = tmp_path / "other.onnx"
    shutil.copyfile(paths["small"], paths["other"])
    with Collector(paths, {"small": Scheme.U8S8, "other": Scheme.FLOAT32}, CPU) as collector:
        for prompt in calls:
            for value in prompt:
                given = constant_input(value)
                for graph in ("small", "other"):  # the loop uses the outputs of both; `other` has no INT8
                    expected = exact.run(given)["y"]
                    y = np.empty_like(expected)
                    collector.run(graph, given, {"y": y})
                    assert np.array_equal(y, expected)
            collector.end_prompt()
    assert collector.prompts == 3 and list(collector.statistics) == ["small"]
    found = collector.statistics["small"]
    assert len(found["x"].calls) == 2
    assert found["x"].extremes() == pytest.approx((-2.0, 4.0))  # first call -1 -3 -2, second call 4 2 6
    # relu(x @ first) against numpy
    row = initializer(model, "first")[0]
    highs = [np.mean([max(0, (prompt[call] * row).max()) for prompt in calls]) for call in range(2)]
    low, high = found["r"].extremes()
    assert low == 0
    assert high == pytest.approx(max(highs), rel=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.onnx", "small.onnx"]


def test_the_same_prompts_give_the_same_statistics(tmp_path: Path) -> None:
    graphs = write_model(tmp_path, linear_model())
    x = np.random.default_rng(0).standard_normal((1000, 64)).astype(np.float32)
    rows = []
    for _ in range(2):
        with Collector(graphs, {"small": Scheme.U8S8}, CPU) as collector:
            for _ in range(3):
                collector.run("small", {"x": x}, {})
                collector.end_prompt()
        rows.append(collector.statistics["small"]["x"].rows())
    assert np.array_equal(*rows)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_overflow_is_named(tmp_path: Path, value: float) -> None:
    with Collector(write_model(tmp_path, linear_model()), {"small": Scheme.U8S8}, CPU) as collector:
        collector.run("small", constant_input(1), {})
        collector.end_prompt()
        with pytest.raises(BuildError, match=r"prompt 2: graph small, tensor x of first reached .*(nan|inf)"):
            collector.run("small", constant_input(value), {})
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
