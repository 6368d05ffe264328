"""`hart-edge calibrate`: a checkpoint in, the file of its INT8 ranges out, for any number of builds."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hart_edge.bundle.manifest import Precision
from hart_edge.cli.calibration_options import add_calibration_arguments
from hart_edge.cli.command import Commands, needs_extra, new_command
from hart_edge.cli.instruction_options import add_instruction_arguments, instruction_of
from hart_edge.cli.progress import BuildLines
from hart_edge.errors import BuildError, border
from hart_edge.reference.presets import SHIPPED_MODEL
from hart_edge.staging import staged_folder

if TYPE_CHECKING:
    from hart_edge.calib.calibrate.ranges import CalibratedRanges
    from hart_edge.export.options import BuildOptions, Progress

    Calibrate = Callable[[BuildOptions, Progress, Path], CalibratedRanges]


def add(commands: Commands) -> None:
    summary = "Run the loop on prompts and write the INT8 ranges of its activations, for any number of builds."
    p = new_command(commands, "calibrate", summary, run)
    p.add_argument("--checkpoint", type=Path, default=SHIPPED_MODEL, help="folder (default: the shipped model)")
    p.add_argument("--out", type=Path, default=Path("calibration.json"), help="file (default: calibration.json)")
    add_instruction_arguments(p)
    add_calibration_arguments(p)
    p.add_argument("--json", action="store_true", help="one JSON object a line instead of text")


def run(a: argparse.Namespace, calibrate: Calibrate | None = None) -> int:
    """calibrate: the function that makes the ranges, in an empty folder; by default export.chain's."""
    try:
        with BuildLines(as_json=a.json) as show:
            with needs_extra("calibration", "export"):
                from hart_edge.export import chain
                from hart_edge.export.options import BuildOptions
            options = BuildOptions(
                a.checkpoint,
                a.out,
                Precision.INT8,
                instruction=instruction_of(a),
                prompts=a.prompts,
                contexts=a.contexts,
                range_rule=a.range_rule,
            )
            found = write_ranges(options, show, calibrate or chain.calibrate_checkpoint)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{a.out} was not written") from None
    tensors = sum(len(ranges) for ranges in found.graphs.values())
    if a.json:
        print(json.dumps({"out": str(a.out), "tensors": tensors, "sha256": found.sha256()}))
    else:
        print(
            f"{a.out}: ranges of {tensors} tensors from {found.prompts} prompts, sha256 {found.sha256()[:16]}; use "
            f"them with\n    python -m export.build --checkpoint {a.checkpoint} --precision int8 --ranges {a.out}"
        )
    return 0


def write_ranges(options: BuildOptions, progress: Progress, calibrate: Calibrate) -> CalibratedRanges:
    """Write the ranges to options.out, whole or not at all, and return them.

    Raises CheckpointError, BuildError or EngineError; then a file of that name is as it was.
    """
    out = options.out
    if out.is_dir():
        raise BuildError(f"{out}: expected a file to write, found a folder; name one with --out")
    with border(BuildError, out, "cannot be written", "name another file with --out"), staged_folder(out) as folder:
        found = calibrate(options, progress, folder)
        written = folder / "calibration.json"
        written.write_bytes(found.to_json())
        os.replace(written, out)
    return found
