"""`hart-edge bench BUNDLE...`: how fast bundles draw on this machine, beside each other and beside the reference."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hart_edge.cli.generate import Bar
from hart_edge.errors import InputError


def run(a: argparse.Namespace) -> int:
    try:
        from hart_edge.checks.bench.report import Asked, as_markdown, measure
    except ImportError as error:
        raise InputError(
            f"bench counts arithmetic in the graphs, which needs onnx ({error}); pip install 'hart-edge[export]'"
        ) from error
    with Bar() as bar:
        asked = Asked(tuple(a.bundle), reference(a.reference), a.prompt, a.pictures, a.rounds, a.threads)
        found = measure(asked, bar.say)
    print(json.dumps(found, indent=1) if a.json else "\n".join(as_markdown(found)))
    return 0


def reference(given: str | None) -> Path | str | None:
    """A preset's name as it is, else a folder. Raises InputError."""
    from hart_edge.reference.presets import PRESETS

    if given is None or given in PRESETS:
        return given
    if not Path(given).is_dir():
        raise InputError(
            f"--reference: expected a checkpoint's folder, or one of {', '.join(PRESETS)}, found {given!r}"
        )
    return Path(given)
