"""`hart-edge bench BUNDLE...`: how fast bundles draw on this machine, beside each other and beside the reference."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hart_edge.cli.command import Commands, new_command
from hart_edge.cli.progress import StatusLine
from hart_edge.errors import InputError


def add(commands: Commands) -> None:
    p = new_command(
        commands, "bench", "Measure how fast bundles draw on this machine, side by side, graph by graph.", run
    )
    p.add_argument("bundle", type=Path, nargs="+", metavar="BUNDLE", help="bundle folder; ratios are to the first")
    p.add_argument("--reference", metavar="DIR|PRESET", help="measure the reference in PyTorch, float32, as well")
    p.add_argument("--prompt", default="man astronaut", help="what is drawn (default: man astronaut)")
    p.add_argument(
        "--pictures",
        type=int,
        default=5,
        metavar="N",
        help="pictures that each process times, after a first one (default: 5)",
    )
    p.add_argument("--rounds", type=int, default=1, metavar="N", help="processes for each bundle, in turn (default: 1)")
    p.add_argument("--threads", type=int, metavar="N", help="threads inside an operator (default: one a core)")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(a: argparse.Namespace) -> int:
    try:
        from hart_edge.checks.bench.report import Asked, as_markdown, measure
    except ImportError as error:
        raise InputError(
            f"bench counts arithmetic in the graphs, which needs onnx ({error}); pip install 'hart-edge[export]'"
        ) from error
    with StatusLine() as bar:
        asked = Asked(tuple(a.bundle), reference(a.reference), a.prompt, a.pictures, a.rounds, a.threads)
        found = measure(asked, bar.say)
    print(json.dumps(found, indent=1) if a.json else "\n".join(as_markdown(found)))
    return 0


def reference(given: str | None) -> Path | str | None:
    """The name of a preset, or a folder. Raises InputError."""
    from hart_edge.reference.presets import PRESETS

    if given is None or given in PRESETS:
        return given
    if not Path(given).is_dir():
        raise InputError(
            f"--reference: expected a checkpoint's folder, or one of {', '.join(PRESETS)}, found {given!r}"
        )
    return Path(given)
