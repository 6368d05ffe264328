"""calibration.json: written, read back, and refused where it is malformed or of another checkpoint."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from hart_edge.calib.calibrate.ranges import ActivationRange, CalibratedRanges, hash_files, read_ranges
from hart_edge.errors import BuildError

OWNER = "a" * 64
GRAPHS = {
    "transformer": {
        "x": ActivationRange(-1.25, 3.0000001, (0, -3, 17), (0.5, -1.25, 1e-05)),
        "h": ActivationRange(0.0, 1e-30),
    },
    "context": {},
}
RANGES = CalibratedRanges(OWNER, 20, "c" * 64, {"transformer": "mse", "context": "min-max"}, GRAPHS)


def write(folder: Path, **changed: Any) -> Path:
    content = json.loads(RANGES.to_json()) | changed
    path = folder / "calibration.json"
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))
    return path


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    path.write_bytes(RANGES.to_json())
    found = read_ranges(path, OWNER)
    assert found == RANGES  # every bit of the floats
    assert found.to_json() == RANGES.to_json()
    assert RANGES.sha256() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_factors_are_powers_of_the_eighth_root_of_two() -> None:
    assert ActivationRange(0, 1).factors() is None
    assert ActivationRange(0, 1, (0, 8, -16, 4)).factors() == pytest.approx([1, 2, 0.25, 2**0.5])


def test_other_weights(tmp_path: Path) -> None:
    message = r"ranges belong to weights a{12}\.\.\., this checkpoint's are b{12}\.\.\.; calibrate this checkpoint$"
    with pytest.raises(BuildError, match=message):
        read_ranges(write(tmp_path), "b" * 64)


def test_other_version(tmp_path: Path) -> None:
    for version in (4, 6, "5", True):
        with pytest.raises(BuildError, match=rf"expected format version 5, found {version!r}; calibrate again$"):
            read_ranges(write(tmp_path, format_version=version), OWNER)


@pytest.mark.parametrize(
    "changed",
    [
        {"graphs": None},
        {"graphs": []},
        {"graphs": {"transformer": {"x": [1, 2]}}},
        {"graphs": {"transformer": {"x": {"low": 1}}}},
        {"graphs": {"transformer": {"x": {"low": "low", "high": 1}}}},
        {"graphs": {"transformer": {"x": {"low": 0, "high": 1, "middle": 0.5}}}},
        {"graphs": {"transformer": {"x": {"low": 0, "high": 1, "exponents": "0 1.5"}}}},
        {"graphs": {"transformer": {"x": {"low": 0, "high": 1, "exponents": "100000"}}}},
        {"graphs": {"transformer": {"x": {"low": 0, "high": 1, "means": "nan"}}}},
        {"graphs": {"transformer": {"x": {"low": 0, "high": 1, "means": [0.5]}}}},
        {"graphs": {"decoder": {"x": {"low": 0, "high": 1, "lows": "0 1"}}}},
        {"graphs": {"decoder": {"x": {"low": 0, "high": 1, "lows": "0 1", "highs": "1 0.5"}}}},
        {"graphs": {"decoder": {"x": {"low": 0, "high": 1, "lows": "0", "highs": "inf"}}}},
        {"range_rules": None},
        {"range_rules": ["mse"]},
        {"graphs": {"transformer": 3}},
        {"prompts": "many"},
        {"weights_sha256": None},
    ],
)
def test_misshapen(tmp_path: Path, changed: dict[str, Any]) -> None:
    path = write(tmp_path, **changed)
    with pytest.raises(BuildError, match=rf"^{path}: not a readable file of ranges \(.*\); calibrate again$"):
        read_ranges(path, OWNER)


@pytest.mark.parametrize(
    "changed",
    [
        {"graphs": {"transformer": {"x": {"low": float("nan"), "high": 1}}}},
        {"graphs": {"transformer": {"x": {"low": 0, "high": float("inf")}}}},
        {"graphs": {"transformer": {"x": {"low": 2, "high": 1}}}},
        {"prompts": 0},
    ],
)
def test_impossible_ranges_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    with pytest.raises(BuildError, match=r"expected finite ranges, low before high, of at least one prompt; calibrate"):
        read_ranges(write(tmp_path, **changed), OWNER)


def test_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    for content in (None, b"", b"{", b"\xff\xfe", b"[]", b"null"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BuildError, match="not a readable file of ranges"):
            read_ranges(path, OWNER)


def test_hash_is_of_contents_in_order(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"1" * (5 * 2**20))
    second.write_bytes(b"2")
    whole = hashlib.sha256(b"1" * (5 * 2**20) + b"2").hexdigest()
    assert hash_files([first, second]) == whole != hash_files([second, first])
