"""`hart-edge data emoji --out DIR`: makes the emoji set, and says what is in it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from hart_edge.cli.command import Commands, new_command
from hart_edge.cli.progress import StatusLine
from hart_edge.cli.tables import table
from hart_edge.data.drawings import STYLES
from hart_edge.data.emoji import EmojiSet, Picture, build
from hart_edge.data.packages import Package, find_archives

ABOUT = 10_300  # drawings in all, to show how many are left
SHOW_EVERY = 0.2  # seconds

FindArchives = Callable[[Path | None], AbstractContextManager[Mapping[Package, Path]]]


def add(commands: Commands) -> None:
    p = new_command(commands, "data", "Make a training set from public packages.", run)
    p.add_argument("set", choices=["emoji"], help="emoji: about 10,000 pictures with captions, 200 MB")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for train/, validation/ and test/")
    p.add_argument(
        "--packages",
        type=Path,
        metavar="DIR",
        help="folder that holds the archives of `npm pack` (default: npm fetches them)",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(a: argparse.Namespace, find_archives: FindArchives = find_archives) -> int:
    """find_archives: the function that finds or fetches the packages."""
    begin = time.monotonic()
    with StatusLine() as line:

        def say(what: str, done: int) -> None:
            share = f"  {done:,} of about {ABOUT:,}; minutes of work" if done else ""
            line.say(f"{what}{share}", every=SHOW_EVERY if done else 0)

        say("packages" if a.packages else "packages, with npm", 0)
        with find_archives(a.packages) as archives:
            made = build(a.out, archives, say)
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
    return [
        *table(("folder", "pictures", *STYLES), rows, frozenset({"pictures", *STYLES})),
        f"folder: the split. pictures: in all, and of each style: {', '.join(STYLES)}.",
    ]


def count_styles(pictures: Sequence[Picture]) -> dict[str, int]:
    return {style: sum(picture.style == style for picture in pictures) for style in STYLES}
