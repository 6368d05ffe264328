"""How far the pictures of each split are from the nearest picture of train, which shows whether a split repeats train.

    python -m benchmarks.nearest data/emoji

Pictures are compared at 32 x 32 pixels by the mean difference, in 8-bit steps, 0 to 255. Of train itself 300 pictures,
evenly spaced, are compared with all others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hart_edge.data.pictures import read_pictures

SIDE, SAMPLE = 32, 300


def nearest(
    pictures: NDArray[np.int16], train: NDArray[np.int16], skip: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """(N,) mean difference of each picture from the nearest of train; `skip`: its own place in train, if it has one."""
    found = np.empty(len(pictures))
    for index, picture in enumerate(pictures):
        distances = np.abs(train - picture).mean(axis=1)
        if skip is not None:
            distances[skip[index]] = np.inf
        found[index] = distances.min()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()

    def read(split: str) -> NDArray[np.int16]:
        images = read_pictures(arguments.data / split, SIDE).images
        return images.reshape(len(images), -1).astype(np.int16)

    train = read("train")
    some = np.unique(np.linspace(0, len(train) - 1, SAMPLE).astype(np.int64))
    print("| split | pictures | 5 % | median | 95 % |")
    print("|---|--:|--:|--:|--:|")
    for split in ("train", "validation", "test"):
        pictures, skip = (train[some], some) if split == "train" else (read(split), None)
        low, middle, high = np.quantile(nearest(pictures, train, skip), (0.05, 0.5, 0.95))
        print(f"| {split} | {len(pictures)} | {low:.1f} | {middle:.1f} | {high:.1f} |")


if __name__ == "__main__":
    main()
