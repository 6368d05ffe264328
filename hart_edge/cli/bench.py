"""`hart-edge bench BUNDLE...`: how fast bundles draw on this machine, beside each other and beside the reference."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path

from hart_edge.bundle.settings import Speed
from hart_edge.cli.command import Commands, needs_extra, new_command
from hart_edge.cli.costs import costs_of
from hart_edge.cli.progress import StatusLine
from hart_edge.cli.values import thread_number, whole
from hart_edge.errors import InputError
from hart_edge.reference.presets import PRESETS


def add(commands: Commands) -> None:
    p = new_command(
        commands, "bench", "Measure how fast bundles draw on this machine, side by side, graph by graph.", run
    )
    p.add_argument("bundle", type=Path, nargs="+", metavar="BUNDLE", help="bundle folder; ratios are to the first")
    p.add_argument(
        "--reference", metavar="DIR|PRESET", help="measure the reference in PyTorch as well, in float32 and bfloat16"
    )
    p.add_argument(
        "--speed",
        nargs="+",
        type=Speed,
        choices=tuple(Speed),
        default=[Speed.EXACT],
        metavar="WORD",
        help="measure every bundle at these speeds: exact, balanced, fast (default: exact)",
    )
    p.add_argument("--prompt", default="man astronaut", help="what is drawn (default: man astronaut)")
    p.add_argument(
        "--pictures",
        type=whole(1),
        default=5,
        metavar="N",
        help="pictures that each process times, after a first one (default: 5)",
    )
    p.add_argument(
        "--rounds", type=whole(1), default=1, metavar="N", help="processes for each bundle, in turn (default: 1)"
    )
    p.add_argument(
        "--threads", type=thread_number, metavar="N", help="threads inside an operator (default: one a core)"
    )
    p.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(a: argparse.Namespace) -> int:
    from hart_edge.checks.bench.report import Asked, as_markdown, measure

    asked = Asked(tuple(a.bundle), tuple(a.speed), reference(a.reference), a.prompt, a.pictures, a.rounds, a.threads)
    with StatusLine() as bar:
        found = measure(asked, bar.say, costs_of)
    print(json.dumps(found, indent=1) if a.json else "\n".join(as_markdown(found)))
    return 0


def reference(given: str | None) -> Path | str | None:
    """The name of a preset, or a folder. Raises InputError, HartEdgeError where there is no torch."""
    if given is None:
        return None
    with needs_extra("the reference", "export"):
        importlib.import_module("torch")
    if given in PRESETS:
        return given
    if not Path(given).is_dir():
        raise InputError(
            f"--reference: expected a checkpoint's folder, or one of {', '.join(PRESETS)}, found {given!r}"
        )
    return Path(given)
