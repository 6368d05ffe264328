"""Pictures of other bit depths: white follows from their range; where that is unclear they are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hart_edge.data.pictures import decode

RAMP = np.tile(np.linspace(0, 1, 64), (64, 1))


def read(tmp_path: Path, name: str, values: Any, **how: Any) -> list[int]:
    """The first row of a picture, from left to right."""
    Image.fromarray(values).save(tmp_path / name, **how)
    return decode(tmp_path / name, 64)[0, :, 0].tolist()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("grey.png", (RAMP * 255).round().astype(np.uint8)),
        ("deep.png", (RAMP * 65535).astype(np.uint16)),
        ("deep.tif", (RAMP * 65535).astype(np.uint16)),
        ("unit.tif", RAMP.astype(np.float32)),
        ("bytes.tif", (RAMP * 255).astype(np.float32)),
        ("integers.tif", (RAMP * 255).round().astype(np.int32)),
        ("deep-integers.tif", (RAMP * 65535).astype(np.int32)),
    ],
)
def test_every_depth_is_the_same_picture(tmp_path: Path, name: str, values: Any) -> None:
    assert read(tmp_path, name, values) == pytest.approx((RAMP[0] * 255).round(), abs=1)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (RAMP * 1000, "0 to 1000"),
        (RAMP - 0.5, "-0.5 to 0.5"),
        (RAMP * np.nan, "nan to nan"),
        (RAMP + np.inf, "inf to inf"),
    ],
)
def test_floats_of_an_unclear_range_are_refused(tmp_path: Path, values: Any, found: str) -> None:
    message = f"expected floating-point numbers from 0 to 1 or from 0 to 255, found {found}; save it with 8 bits"
    with pytest.raises(ValueError, match=message):
        read(tmp_path, "a.tif", values.astype(np.float32))


@pytest.mark.parametrize(("high", "found"), [(70_000, "0 to 70,000"), (-1, "-1 to 0")])
def test_integers_of_an_unclear_range_are_refused(tmp_path: Path, high: int, found: str) -> None:
    with pytest.raises(ValueError, match=f"expected integers from 0 to 255 or from 0 to 65,535, found {found}; "):
        read(tmp_path, "a.tif", (RAMP * high).astype(np.int32))


def test_a_transparent_value_of_16_bits(tmp_path: Path) -> None:
    row = read(tmp_path, "a.png", np.tile(np.array([0] * 32 + [40000] * 32, np.uint16), (64, 1)), transparency=0)
    assert row[0] == 255 and row[-1] == 40000 >> 8  # white, as every transparent pixel
