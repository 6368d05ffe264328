"""Uncurated samples for a model card: the first prompts of a split, in its file's order, prompt i with seed i.

A grid with each prompt below its picture.

    python -m benchmarks.samples bundles/hart-emoji-fp16 --data data/emoji/test --out docs/images/hart-emoji.png
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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="a split, such as data/emoji/test")
    parser.add_argument("--count", type=int, default=32, metavar="N", help="default: 32")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    options = parser.parse_args(arguments)
    rows = read_metadata(options.data).rows[: options.count]
    prompts = [row.captions[0] for row in rows]
    pictures = load(options.bundle).generate(prompts, seed=range(len(prompts)))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(pictures, prompts).save(options.out)
    print(f"wrote {options.out}: {len(prompts)} pictures, seeds 0 to {len(prompts) - 1}")


if __name__ == "__main__":
    main()
