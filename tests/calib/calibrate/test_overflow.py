"""Tensors whose values come near the largest FP16 number during the loop are found and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from hart_edge.bundle.manifest import Target
from hart_edge.calib.calibrate.overflow import LARGEST_TRUSTED, OverflowWatch
from hart_edge.engines.registry import REGISTRY
from tests.calib.make_graphs import make_model, weight, write_model

CPU = REGISTRY.library(Target.CPU)
NODES = [helper.make_node("MatMul", ["x", "first"], ["h"]), helper.make_node("Neg", ["h"], ["y"])]


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    return write_model(tmp_path, make_model(NODES, [weight("first", 64, 64)]))


@pytest.mark.parametrize("value", [100 * LARGEST_TRUSTED, 3e38, float("nan")])
def test_large_and_undefined_values_are_named(paths: dict[str, Path], value: float) -> None:
    small = np.ones((1, 64), np.float32)
    paths["other"] = paths["small"].with_name("other.onnx")  # it has no FP16 tensors
    shutil.copyfile(paths["small"], paths["other"])
    exact = CPU.open(paths["small"]).run({"x": small})["y"]
    with OverflowWatch(paths, {"small": ["h", "y", "x:elsewhere"]}, CPU) as watch:
        y = np.empty_like(exact)
        watch.run("small", {"x": small}, {"y": y})
        assert np.array_equal(y, exact)
        assert watch.wide() == {"small": frozenset()}
        watch.run("small", {"x": small * np.float32(value)}, {})
        y = np.empty_like(exact)
        watch.run("other", {"x": small}, {"y": y})
        assert np.array_equal(y, exact)
        watch.run("small", {"x": small}, {})
        assert watch.wide() == {"small": frozenset({"h", "y"})}
    assert sorted(path.name for path in paths["small"].parent.iterdir()) == ["other.onnx", "small.onnx"]


def test_the_largest_magnitude_of_all_calls_is_kept(paths: dict[str, Path]) -> None:
    with OverflowWatch(paths, {"small": ["h"]}, CPU) as watch:
        for factor in (1, -30, 2):
            watch.run("small", {"x": np.full((1, 64), factor, np.float32)}, {})
        assert 30 < watch.largest["small"]["h"] < 300


def test_an_empty_tensor_has_no_extremes(paths: dict[str, Path]) -> None:
    with OverflowWatch(paths, {"small": ["h"]}, CPU) as watch:
        watch.run("small", {"x": np.ones((0, 64), np.float32)}, {})
        assert watch.wide() == {"small": frozenset()}
        watch.run("small", {"x": np.full((1, 64), 3e38, np.float32)}, {})
        assert watch.wide() == {"small": frozenset({"h"})}
