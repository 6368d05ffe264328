"""The same picture twice: found by what it looks like.

In: a small view of every picture. Out: for each picture the first one that looks the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CELLS = 32  # a picture is compared as CELLS x CELLS means
COARSE = 8  # a first look, at COARSE x COARSE means, leaves few pairs to compare
LARGEST = 12  # of 255: pictures none of whose cells differ by more are the same
BLOCK = 512  # pictures at a time


def small_view(pixels: NDArray[np.uint8], cells: int = CELLS) -> NDArray[np.uint8]:
    """Means over cells x cells: (cells, cells, 3) uint8 from (side, side, 3), side a multiple of cells."""
    size = pixels.shape[0] // cells
    means: NDArray[np.float64] = pixels.reshape(cells, size, cells, size, 3).mean(axis=(1, 3))
    return means.round().astype(np.uint8)


def first_alike(views: NDArray[np.uint8], largest: int = LARGEST) -> NDArray[np.int64]:
    """(N,): for each picture the index of the first one that looks the same, which may be its own.

    views: (N, CELLS, CELLS, 3) uint8. The largest difference of a cell decides, not the mean: the hand of a clock is a
    small part of its picture. Alike means alike to the first of its kind, so small steps do not add up.
    """
    first = np.arange(len(views))
    coarse = np.stack([small_view(view, COARSE) for view in views]).reshape(len(views), -1).astype(np.float32)
    squares = (coarse**2).sum(axis=1)
    # If no cell differs by more than `largest`, no coarse cell does; 1 more for the rounding of both means.
    far = coarse.shape[1] * (largest + 1) ** 2
    for start in range(0, len(views), BLOCK):
        rows = slice(start, start + BLOCK)
        distances = squares[rows, None] + squares[None, :] - 2 * coarse[rows] @ coarse.T  # (BLOCK, N)
        for row, column in np.argwhere(distances <= far):
            later, earlier = start + row, column
            if earlier < later and first[later] == later and first[earlier] == earlier:
                difference = np.abs(views[later].astype(np.int16) - views[earlier].astype(np.int16)).max()
                if difference <= largest:
                    first[later] = earlier
    return first
