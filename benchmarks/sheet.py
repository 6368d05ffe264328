"""A sheet of pictures: one row a bundle, one column a prompt with its seed.

    python -m benchmarks.sheet bundles/hart-emoji-fp32 bundles/hart-emoji-int8 --out docs/images/int8.png
    python -m benchmarks.sheet bundles/hart-emoji-int8 --prompts "a red heart" "face" --out strip.png

Prints the prompts in their order and, for every bundle after the first, the mean absolute difference from the first in
8-bit steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from hart_edge.engines.loading import load

PROMPTS = (
    "man astronaut",
    "grinning face",
    "a red heart",
    "woman firefighter: medium skin tone",
    "thumbs up: dark skin tone",
    "dog face",
    "green apple",
    "sailboat",
)
MARGIN = 4


def draw(bundle: Path, prompts: Sequence[str], first: int) -> list[Image.Image]:
    """first: the seed of the first prompt; the next has the next."""
    return load(bundle).generate(prompts, seed=range(first, first + len(prompts)))


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, help="what to draw (default: those of docs/int8.md)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first prompt, the next has the next (default: 0)"
    )
    arguments = parser.parse_args(given)
    prompts = arguments.prompts
    rows = [draw(bundle, prompts, arguments.seed) for bundle in arguments.bundles]
    side = rows[0][0].width + MARGIN
    sheet = Image.new("RGB", (side * len(prompts) + MARGIN, side * len(rows) + MARGIN), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (MARGIN + x * side, MARGIN + y * side))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(arguments.out)
    first = np.array([np.asarray(picture, np.float64) for picture in rows[0]])
    for bundle, row in zip(arguments.bundles[1:], rows[1:], strict=True):
        difference = np.abs(np.array([np.asarray(picture, np.float64) for picture in row]) - first).mean((1, 2, 3))
        print(f"{bundle}: mean absolute difference from {arguments.bundles[0]} by prompt, in 8-bit steps:")
        for prompt, value in zip(prompts, difference, strict=True):
            print(f"  {value:6.2f}  {prompt}")
    columns = ", ".join(f"{number} {prompt}" for number, prompt in enumerate(prompts, 1))
    print(f"{arguments.out}, from left to right: {columns}")


if __name__ == "__main__":
    main()
