"""`hart-edge upgrade BUNDLE`: a bundle of an earlier format is built again from its checkpoint, as it was."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hart_edge.bundle.earlier import EarlierBundle, read_earlier
from hart_edge.bundle.manifest import FORMAT_VERSION, RANDOM_ENDING, Manifest, Precision
from hart_edge.cli.build import report
from hart_edge.cli.command import Commands, needs_extra, new_command
from hart_edge.cli.progress import BuildLines
from hart_edge.errors import BundleError, InputError
from hart_edge.reference.presets import PRESETS, SHIPPED_MODEL
from hart_edge.runtime.allocator import map_large_blocks

if TYPE_CHECKING:
    from hart_edge.export.options import BuildOptions, Progress

    Build = Callable[[BuildOptions, Progress], Manifest]


def add(commands: Commands) -> None:
    p = new_command(
        commands,
        "upgrade",
        "Build a bundle of an earlier format again, with its own precision, target, settings and INT8 ranges; one of "
        "the present format is left as it is.",
        run,
    )
    p.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    p.add_argument(
        "--checkpoint",
        metavar="DIR|PRESET",
        help="what it was built from (default: the shipped model, for a bundle of that name)",
    )
    p.add_argument("--out", type=Path, metavar="DIR", help="folder of the result (default: BUNDLE is replaced)")
    p.add_argument("--calibrate", action="store_true", help="collect INT8 ranges anew")
    p.add_argument("--anyway", action="store_true", help="build one of the present format again, too")
    p.add_argument("--json", action="store_true", help="one JSON object a line instead of text")


def run(a: argparse.Namespace, build: Build | None = None) -> int:
    """build: the function that builds; by default export.chain's."""
    found = read_earlier(a.bundle)
    if found.format_version == FORMAT_VERSION and not a.anyway:
        if a.json:
            print(json.dumps({"bundle": str(a.bundle), "format_version": FORMAT_VERSION, "upgraded": False}))
        else:
            print(f"{a.bundle}: has format {FORMAT_VERSION}, the present one; nothing to do")
        return 0
    if found.has_engines:
        raise BundleError(
            f"{a.bundle}: holds engines, which hart-edge engines makes; upgrade the portable bundle that they were "
            "made from, and make them again"
        )
    with BuildLines(as_json=a.json) as show:
        with needs_extra("building", "export"):
            from hart_edge.export import chain
        map_large_blocks()
        begin = time.monotonic()
        options = build_options(a, found)
        manifest = (build or chain.build)(options, show)
    report(manifest, options.out, time.monotonic() - begin, as_json=a.json)
    return 0


def build_options(a: argparse.Namespace, found: EarlierBundle) -> BuildOptions:
    """The build that made the bundle, as far as it tells."""
    from hart_edge.calib.calibrate.ranges import is_current
    from hart_edge.export.options import BuildOptions

    kept = found.ranges is not None and not a.calibrate and is_current(found.ranges)
    return BuildOptions(
        checkpoint=checkpoint_of(a, found),
        out=a.out or a.bundle,
        precision=found.precision,
        target=found.target,
        settings=found.settings,
        ranges=found.ranges if kept and found.precision is Precision.INT8 else None,
        portable=True,
        command=shlex.join(a.typed),
    )


def checkpoint_of(a: argparse.Namespace, found: EarlierBundle) -> Path | str:
    """What to build from. Raises InputError where the bundle's name does not tell."""
    if a.checkpoint is not None:
        return a.checkpoint if a.checkpoint in PRESETS else Path(a.checkpoint)
    if found.name.endswith(RANDOM_ENDING):
        known = [preset for preset in PRESETS if found.name.startswith(preset)]
        if len(known) == 1:
            return known[0]
    elif found.name.startswith(SHIPPED_MODEL.name):
        return SHIPPED_MODEL
    raise InputError(
        f"{a.bundle}: expected --checkpoint, since a bundle does not name the folder that it was built from; its "
        "README.md has the command of the build"
    )
