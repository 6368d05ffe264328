"""`hart-edge batch`: a file of prompts in, a folder of pictures with metadata.jsonl out; what is there is not drawn
again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from pathlib import Path

from hart_edge.api import find_bundle
from hart_edge.batch.drawing import BatchPlan, check_batch, draw_here
from hart_edge.batch.folder import BatchFolder
from hart_edge.batch.prompts import read_prompts
from hart_edge.cli.command import Commands, needs_extra, new_command
from hart_edge.cli.progress import StatusLine
from hart_edge.cli.setting_options import add_setting_arguments, settings_of
from hart_edge.cli.values import thread_number, whole


def add(commands: Commands) -> None:
    p = new_command(commands, "batch", "Draw a file of prompts into a folder, here or on a Ray cluster.", run)
    p.add_argument("prompts", type=Path, metavar="PROMPTS", help=".txt, .csv or .jsonl (docs/batch.md)")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for PNG files and metadata.jsonl")
    p.add_argument("--bundle", type=Path, metavar="DIR", help="bundle folder (default: bundles/hart-emoji-int8)")
    p.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the first prompt; the next has N + 1 (default: 0)"
    )
    add_setting_arguments(p, "the bundle's")
    p.add_argument("--threads", type=thread_number, metavar="N", help="threads of a pipeline (default: all, on Ray 1)")
    p.add_argument("--address", metavar="ADDRESS", help="Ray cluster: auto, HOST:PORT, or local to start one here")
    p.add_argument("--workers", type=whole(1, 10_000), metavar="N", help="pipelines on Ray (default: as many as fit)")
    p.add_argument("--json", action="store_true", help="print one JSON object for each picture instead of a line")


def run(a: argparse.Namespace) -> int:
    if a.workers is not None and a.address is None:
        a.refuse("--workers: expected --address beside it, found none; without Ray one pipeline draws in this process")
    items = read_prompts(a.prompts, a.seed)
    plan = BatchPlan(find_bundle(a.bundle), settings_of(a), a.threads)
    folder = BatchFolder(a.out, check_batch(plan, items, a.prompts))
    left = folder.prepare(items)
    by_place, begun = {item.place: item for item in left}, time.monotonic()
    with contextlib.ExitStack() as stack:
        if a.address is not None and left:
            with needs_extra("a batch on Ray", "ray"):
                from hart_edge.batch.on_ray import connected, draw_on_ray
            stack.enter_context(connected(a.address))
            pictures = draw_on_ray(plan, left, folder.expected, a.workers)
        else:
            pictures = draw_here(plan, left, folder.expected)
        line = stack.enter_context(StatusLine())
        for number, (place, picture) in enumerate(pictures, 1):
            folder.write(by_place[place], picture)
            if a.json:
                print(json.dumps(folder.row(by_place[place])), flush=True)
            each = (time.monotonic() - begun) / number
            line.say(f"{number} of {len(left)} pictures, {each:.2f} s each, {each * (len(left) - number):.0f} s to go")
    folder.finish(items)
    if not a.json:
        seconds, before = time.monotonic() - begun, len(items) - len(left)
        print(f"{a.out}: {len(left)} pictures in {seconds:.1f} s{f', {before} were there' if before else ''}")
    return 0
