"""`hart-edge data emoji --out DIR`: makes the emoji set, and says what is in it."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from hart_edge.cli.tables import table
from hart_edge.data.drawings import STYLES
from hart_edge.data.emoji import EmojiSet, Picture, build
from hart_edge.data.packages import find_archives

ABOUT = 10_300  # drawings, for the share that is done
SHOW_EVERY = 0.2  # seconds


def run(a: argparse.Namespace) -> int:
    begin = time.monotonic()
    with Line() as line:
        line("packages" if a.packages else "packages, with npm", 0)
        with find_archives(a.packages) as archives:
            made = build(a.out, archives, line)
    seconds = time.monotonic() - begin
    if a.json:
        counts = {split: count_styles(pictures) for split, pictures in made.pictures.items()}
        told = {"out": str(a.out), "pictures": counts, "duplicates": made.duplicates, "seconds": round(seconds, 1)}
        print(json.dumps(told))
    else:
        print("\n".join(as_text(made)))
        print(f"{a.out}: {sum(map(len, made.pictures.values())):,} pictures with captions, {seconds:.0f} s")
    return 0


def as_text(made: EmojiSet) -> list[str]:
    rows = []
    for split, pictures in made.pictures.items():
        count = count_styles(pictures)
        rows.append((split, f"{len(pictures):,}", *(f"{count[style]:,}" for style in STYLES)))
    return table(("folder", "pictures", *STYLES), rows, frozenset({"pictures", *STYLES}))


def count_styles(pictures: Sequence[Picture]) -> dict[str, int]:
    return {style: sum(picture.style == style for picture in pictures) for style in STYLES}


class Line:
    """One line on a terminal that says what goes on; nothing where standard error is no terminal."""

    def __init__(self) -> None:
        self._terminal, self._shown = sys.stderr.isatty(), 0.0

    def __call__(self, what: str, done: int) -> None:
        if self._terminal and (done == 0 or time.monotonic() - self._shown > SHOW_EVERY):
            self._shown = time.monotonic()
            share = f"  {done:,} of about {ABOUT:,}; minutes of work" if done else ""
            print(f"\r\033[K{what}{share}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
