"""Pictures that look the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hart_edge.data.duplicates import CELLS, LARGEST, first_alike, small_view


def pictures(count: int, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(40, 216, (count, CELLS, CELLS, 3), dtype=np.uint8)


def test_small_view_is_the_mean_of_cells() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:2, :2, 0] = [[10, 20], [30, 41]]
    view = small_view(picture)
    assert view.shape == (32, 32, 3) and view.dtype == np.uint8
    assert view[0, 0].tolist() == [25, 0, 0] and view.sum() == 25


def test_the_first_that_looks_the_same() -> None:
    views = pictures(6)
    views[3] = views[1]
    views[5] = views[1] + 3
    assert first_alike(views).tolist() == [0, 1, 2, 1, 4, 1]


def test_the_largest_difference_decides() -> None:
    """One cell of 1024 is enough to differ, such as the hand of a clock."""
    views = pictures(3)
    views[1:] = views[0]
    views[1, 7, 9, 2] += LARGEST
    views[2, 7, 9, 2] += LARGEST + 1
    assert first_alike(views).tolist() == [0, 0, 2]


def test_duplicates_are_compared_with_the_first_only() -> None:
    views = np.full((4, CELLS, CELLS, 3), 100, np.uint8)
    views += np.arange(4, dtype=np.uint8)[:, None, None, None] * (LARGEST - 1)
    assert first_alike(views).tolist() == [0, 0, 2, 2]


def test_against_every_pair_compared() -> None:
    rng = np.random.default_rng(7)
    base = pictures(30, seed=2)[rng.integers(0, 30, 700)]  # more than one block
    noise = rng.integers(0, LARGEST + 4, (700, 1, 1, 1)) * rng.integers(0, 2, base.shape)
    views = (base + noise).astype(np.uint8)
    expected: list[int] = []
    for view in views:
        firsts = [index for index, first in enumerate(expected) if first == index]
        alike = (i for i in firsts if np.abs(views[i].astype(int) - view.astype(int)).max() <= LARGEST)
        expected.append(next(alike, len(expected)))
    found = first_alike(views)
    assert found.tolist() == expected
    assert 30 < len(set(expected)) < 600
