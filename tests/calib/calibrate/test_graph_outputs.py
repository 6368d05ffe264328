"""Range outputs of a graph, compared with numpy on the tensors themselves."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from hart_edge.calib.calibrate.graph_outputs import PARTS, PICK, with_extremes, with_range_outputs
from hart_edge.calib.calibrate.statistics import ROWS
from tests.calib.make_graphs import conv_model, initializer, linear_model, make_model, run_model, weight

# Run a graph of LAYERS layers on x, in order, and print the bytes by which the peak grew, in units of one tensor.
MEASURE = """
import resource, sys, json
import numpy as np
from pathlib import Path
from hart_edge.bundle.manifest import Target
from hart_edge.engines.registry import REGISTRY
session = REGISTRY.library(Target.CPU).open(Path(sys.argv[1]), in_order=True)
feeds = {name: np.load(path) for name, path in json.loads(sys.argv[2]).items()}
session.run({name: array[:32] for name, array in feeds.items()})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
session.run(feeds)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / feeds["x"].nbytes)
"""
LAYERS = 24
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


@pytest.mark.parametrize("add", [with_range_outputs, with_extremes])
def test_a_tensor_is_not_kept_until_the_graph_ends(tmp_path: Path, add: Callable[..., onnx.ModelProto]) -> None:
    """Of a deep graph all tensors together would not fit: each is looked at as soon as it is there."""
    names = [f"h{layer}" for layer in range(1, LAYERS)]
    chain = itertools.pairwise(["x", *names, "y"])
    model = make_model([helper.make_node("MatMul", [x, "w"], [y]) for x, y in chain], [weight("w", 64, 64)])
    path = tmp_path / "deep.onnx"
    onnx.save_model(add(model, names), path)
    feeds = {"x": np.ones((80_000, 64), np.float32)} | ({PICK: EVEN} if add is with_range_outputs else {})
    for name, array in feeds.items():
        np.save(tmp_path / f"{name}.npy", array)
    files = json.dumps({name: str(tmp_path / f"{name}.npy") for name in feeds})
    run = subprocess.run([sys.executable, "-c", MEASURE, str(path), files], capture_output=True, text=True, check=True)
    assert float(run.stdout) < LAYERS / 3  # two tensors and the output; all of them where none is freed


def test_extremes(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5, 64)).astype(np.float32)
    found = run_model(tmp_path, with_extremes(linear_model(), ["x"]), {"x": x})
    assert (found["x:low"], found["x:high"]) == (x.min(), x.max())
    assert list(found) == ["y", "x:low", "x:high"]
