"""Uncurated samples for a model card: a grid with each prompt below its picture.

The first prompts of a split, in its file's order, prompt i with seed i; or those of a file, a prompt a line, all with
one seed, as benchmarks/everyday_prompts.txt wants to be drawn:

    python -m benchmarks.samples bundles/hart-emoji-fp16 --data data/emoji/test --out docs/images/hart-emoji.png
    python -m benchmarks.samples bundles/hart-emoji-fp32 --prompts benchmarks/everyday_prompts.txt --seed 0 --out FILE
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from hart_edge.data.metadata import read_metadata
from hart_edge.engines.loading import load

COLUMNS = 8
MARGIN, LINES, LINE_HEIGHT, FONT_SIZE = 6, 3, 11, 9  # pixels; lines of a prompt


def sheet(pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Image.Image:
    """A grid of pictures of one size, COLUMNS a row, each with its prompt below."""
    width, height = pictures[0].width + MARGIN, pictures[0].height + LINES * LINE_HEIGHT + MARGIN
    rows = -(-len(pictures) // COLUMNS)
    made = Image.new("RGB", (width * min(len(pictures), COLUMNS) + MARGIN, height * rows + MARGIN), "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(FONT_SIZE)
    letters = int(pictures[0].width // font.getlength("n"))
    for number, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        row, column = divmod(number, COLUMNS)
        left, top = MARGIN + column * width, MARGIN + row * height
        made.paste(picture, (left, top))
        for line, text in enumerate(textwrap.wrap(prompt, letters, max_lines=LINES)):
            draw.text((left, top + picture.height + line * LINE_HEIGHT), text, "black", font)
    return made


def read_prompts(path: Path) -> list[str]:
    """A prompt a line; empty lines and those that begin with # are none."""
    lines = (line.strip() for line in path.read_text("utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--data", type=Path, metavar="DIR", help="a split, such as data/emoji/test")
    source.add_argument("--prompts", type=Path, metavar="FILE", help="a prompt a line; all are drawn")
    parser.add_argument("--count", type=int, default=32, metavar="N", help="of a split's prompts (default: 32)")
    parser.add_argument("--seed", type=int, metavar="N", help="of every picture (default: 0, 1, 2 and so on)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    options = parser.parse_args(arguments)
    if options.prompts is not None:
        prompts = read_prompts(options.prompts)
    else:
        prompts = [row.captions[0] for row in read_metadata(options.data).rows[: options.count]]
    seeds = range(len(prompts)) if options.seed is None else [options.seed] * len(prompts)
    pictures = load(options.bundle).generate(prompts, seed=seeds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(pictures, prompts).save(options.out)
    told = f"seeds 0 to {len(prompts) - 1}" if options.seed is None else f"seed {options.seed}"
    print(f"wrote {options.out}: {len(prompts)} pictures, {told}")


if __name__ == "__main__":
    main()
