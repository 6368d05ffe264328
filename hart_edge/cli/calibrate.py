"""The command line of `python -m calib.collect`: a checkpoint in, the file of its INT8 ranges out."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hart_edge.bundle.manifest import Precision
from hart_edge.calib.calibrate.ranges import CalibratedRanges
from hart_edge.cli.build import ProgressPrinter, add_calibration_arguments
from hart_edge.errors import BuildError, HartEdgeError
from hart_edge.export.chain import SHIPPED_MODEL, Builder, BuildOptions
from hart_edge.export.options import Progress


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m calib.collect",
        description="Run the loop on prompts and write the INT8 ranges of its activations, for any number of builds.",
    )
    p.add_argument("--checkpoint", type=Path, default=SHIPPED_MODEL, help="folder (default: the shipped model)")
    p.add_argument("--out", type=Path, default=Path("calibration.json"), help="file (default: calibration.json)")
    add_calibration_arguments(p)
    p.add_argument("--json", action="store_true", help="one JSON object a line instead of text")
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Collect ranges; returns the exit status. Errors go to standard error, one message."""
    a = parser().parse_args(list(sys.argv[1:] if arguments is None else arguments))
    show = ProgressPrinter(as_json=a.json)
    options = BuildOptions(
        a.checkpoint,
        a.out,
        Precision.INT8,
        prompts=a.prompts,
        contexts=a.contexts,
        range_rule=a.observer,
    )
    try:
        found = collect(options, show)
    except HartEdgeError as error:
        show.finish_line()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        show.finish_line()
        print(f"interrupted; {a.out} was not written", file=sys.stderr)
        return 130
    tensors = sum(len(ranges) for ranges in found.graphs.values())
    if a.json:
        print(json.dumps({"out": str(a.out), "tensors": tensors, "sha256": found.sha256()}))
    else:
        print(
            f"{a.out}: ranges of {tensors} tensors from {found.prompts} prompts, sha256 {found.sha256()[:16]}; use "
            f"them with\n    python -m export.build --checkpoint {a.checkpoint} --precision int8 --ranges {a.out}"
        )
    return 0


def collect(options: BuildOptions, progress: Progress) -> CalibratedRanges:
    """Write the ranges of options.checkpoint to options.out, whole or not at all, and return them.

    Raises CheckpointError, BuildError or EngineError; then a file of that name is as it was.
    """
    out = options.out
    if out.is_dir():
        raise BuildError(f"{out}: expected a file to write, found a folder; name one with --out")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
            found = Builder(options, progress).calibrate(Path(folder))
            written = Path(folder) / out.name
            written.write_bytes(found.to_json())
            os.replace(written, out)
    except OSError as error:
        raise BuildError(f"{out}: cannot be written ({error}); name another file with --out") from error
    return found
