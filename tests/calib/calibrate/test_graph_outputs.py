"""Range outputs of a graph, compared with numpy on the tensors themselves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from hart_edge.calib.calibrate.graph_outputs import PARTS, PICK, with_extremes, with_range_outputs
from hart_edge.calib.calibrate.statistics import ROWS
from tests.calib.make_graphs import conv_model, initializer, linear_model, run_model

EVEN = (np.arange(ROWS, dtype=np.float32) + 0.5) / ROWS


def test_range_outputs_are_added_to_the_outputs() -> None:
    model = linear_model()
    instrumented = with_range_outputs(model, ["x", "r"])
    parts = [f"{name}:{part}" for name in "xr" for part in PARTS]
    assert [value.name for value in instrumented.graph.output] == ["y", *parts]
    assert [value.name for value in model.graph.output] == ["y"]  # the given model is unchanged


def test_rows_and_reductions_of_a_linear_layer(tmp_path: Path) -> None:
    model = linear_model()
    x = np.random.default_rng(0).standard_normal((100, 64)).astype(np.float32)
    found = run_model(tmp_path, with_range_outputs(model, ["x", "r"]), {"x": x, PICK: EVEN})
    r = np.maximum(x @ initializer(model, "first"), 0)
    picked = (EVEN * 100).astype(int)
    for name, values in (("x", x), ("r", r)):
        assert found[f"{name}:low"] == pytest.approx(values.min(0), abs=1e-5)
        assert found[f"{name}:high"] == pytest.approx(values.max(0), abs=1e-5)
        assert found[f"{name}:mean"] == pytest.approx(values.mean(0), abs=1e-5)
        assert found[f"{name}:rows"] == pytest.approx(values[picked], abs=1e-5)


def test_fewer_rows_than_are_returned(tmp_path: Path) -> None:
    x = np.arange(3 * 64, dtype=np.float32).reshape(3, 64)
    found = run_model(tmp_path, with_range_outputs(linear_model(), ["x"]), {"x": x, PICK: EVEN})
    assert found["x:rows"].shape == (ROWS, 64)
    assert {int(row[0]) for row in found["x:rows"]} == {0, 64, 128}


def test_both_branches_of_a_batch_get_the_same_number_of_rows(tmp_path: Path) -> None:
    x = np.repeat(np.array([1.0, 2.0], np.float32), 7)[:, None] * np.ones(64, np.float32)  # two branches of 7 rows
    pick = ((np.arange(ROWS) + np.random.default_rng(0).random(ROWS)) / ROWS).astype(np.float32)
    found = run_model(tmp_path, with_range_outputs(linear_model(), ["x"]), {"x": x, PICK: pick})
    assert (found["x:rows"][:, 0] == 1).sum() == (found["x:rows"][:, 0] == 2).sum() == ROWS // 2


def test_channels_of_a_convolution_are_axis_1(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((2, 32, 8, 8)).astype(np.float32)
    instrumented = with_range_outputs(conv_model(), ["x", "h", "y"])
    onnx.checker.check_model(instrumented)
    found = run_model(tmp_path, instrumented, {"x": x, PICK: EVEN})
    assert found["x:low"] == pytest.approx(x.min((0, 2, 3)))
    assert found["x:high"] == pytest.approx(x.max((0, 2, 3)))
    assert found["x:mean"] == pytest.approx(x.mean((0, 2, 3)), abs=1e-6)
    assert np.array_equal(found["x:rows"], x[0].reshape(32, 64).T[(EVEN * 64).astype(int)])
    assert {name: found[f"{name}:rows"].shape for name in "xhy"} == dict.fromkeys("xhy", (ROWS, 32))


def test_extremes(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    found = run_model(tmp_path, with_extremes(linear_model(), ["x"]), {"x": x})
    assert (found["x:low"], found["x:high"]) == (x.min(), x.max())
    assert list(found) == ["y", "x:low", "x:high"]
