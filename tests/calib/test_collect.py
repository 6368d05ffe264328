"""Ranges from the activations of calls: averaged over prompts, the widest call of a prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calib.collect import RangeCollector, observed_tensors, with_observers
from calib.forms import Form
from engines.registry import library
from runtime.errors import BuildError
from runtime.manifest import Target
from tests.calib.make_graphs import conv_model, initializer, linear_model, write_model

CPU = library(Target.CPU)


def constant_input(value: float) -> dict[str, np.ndarray]:
    x = np.zeros((1, 64), np.float32)
    x[0, 0] = value
    return {"x": x}


def test_observed_tensors() -> None:
    assert observed_tensors(linear_model(), Form.U8S8) == ["x", "r"]
    assert observed_tensors(conv_model(), Form.U8S8) == ["x", "h", "y"]  # what a convolution writes as well
    for form in (Form.FLOAT32, Form.FLOAT16_WEIGHTS, Form.INT8_WEIGHTS):
        assert observed_tensors(linear_model(), form) == []


def test_observers_are_the_only_outputs() -> None:
    model = linear_model()
    observed = with_observers(model, ["x", "r"])
    assert [value.name for value in observed.graph.output] == ["x:low", "x:high", "r:low", "r:high"]
    assert [value.name for value in model.graph.output] == ["y"]  # the model itself is as it was


def test_average_over_prompts_of_the_widest_call(tmp_path: Path) -> None:
    """Two calls a prompt, three prompts: each call's extremes are averaged, and the widest of the two is the range."""
    model = linear_model()
    calls = [[(-1.0), (4.0)], [(-3.0), (2.0)], [(-2.0), (6.0)]]
    with RangeCollector(write_model(tmp_path, model), {"small": Form.U8S8}, CPU) as collector:
        for prompt in calls:
            for value in prompt:
                collector("small", constant_input(value))
                collector("other", {})  # a graph that holds no INT8 is passed over
            collector.end_prompt()
        found = collector.ranges()
    assert collector.prompts == 3
    assert found["small"]["x"] == pytest.approx((-2.0, 4.0))  # first call -1 -3 -2, second call 4 2 6
    # relu(x @ first) against numpy
    row = initializer(model, "first")[0]
    highs = [np.mean([max(0, (prompt[call] * row).max()) for prompt in calls]) for call in range(2)]
    low, high = found["small"]["r"]
    assert low == 0
    assert high == pytest.approx(max(highs), rel=1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


def test_memory_does_not_grow_with_prompts(tmp_path: Path) -> None:
    with RangeCollector(write_model(tmp_path, linear_model()), {"small": Form.U8S8}, CPU) as collector:
        for prompt in range(50):
            collector("small", constant_input(prompt))
            collector.end_prompt()
        assert sum(len(sums) for sums in collector._sums.values()) == 4
        assert collector.ranges()["small"]["x"] == pytest.approx((0.0, 24.5))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_overflow_is_named(tmp_path: Path, value: float) -> None:
    with RangeCollector(write_model(tmp_path, linear_model()), {"small": Form.U8S8}, CPU) as collector:
        collector("small", constant_input(1))
        collector.end_prompt()
        with pytest.raises(BuildError, match=r"^calibration prompt 2: graph small, tensor x reached (nan|inf); the"):
            collector("small", constant_input(value))


def test_no_prompt() -> None:
    message = "expected at least one prompt, found none; name a file with --prompts"
    with RangeCollector({}, {}, CPU) as collector, pytest.raises(BuildError, match=message):
        collector.ranges()
