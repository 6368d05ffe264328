"""`hart-edge golden DIR`: a line for each record, a summary, exit 1 beyond tolerance. --record makes the records."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hart_edge.checks.golden_records import RECORDS_FILE
from hart_edge.cli.command import Commands, needs_extra, new_command

if TYPE_CHECKING:
    from hart_edge.checks.golden_records import RecordResult


def add(commands: Commands) -> None:
    p = new_command(
        commands,
        "golden",
        "Hold a checkpoint, or a bundle built from it, against its golden records; exit 1 beyond tolerance. With "
        "--record: make the records.",
        run,
    )
    p.add_argument("folder", type=Path, metavar="DIR", help="checkpoint folder, with golden.npz unless it is recorded")
    p.add_argument(
        "--bundle",
        type=Path,
        metavar="BUNDLE",
        help="hold this bundle's loop against the records instead of the reference",
    )
    p.add_argument(
        "--record",
        action="store_true",
        help="write DIR/golden.npz: fixed inputs, and what the reference computes from them on this machine",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object for each record instead of text")


def run(a: argparse.Namespace) -> int:
    if a.record:
        return make_records(a)
    start = time.perf_counter()
    count, failed = 0, []
    for result in results(a):
        count += 1
        if not result.ok:
            failed.append(result.name)
        if a.json:
            error = result.error if math.isfinite(result.error) else None
            record = {"record": result.name, "error": error, "tolerance": result.tolerance, "ok": result.ok}
            print(json.dumps(record), flush=True)
        else:
            print(result.line(), flush=True)
    seconds = time.perf_counter() - start
    if a.json:
        print(json.dumps({"records": count, "failed": failed, "seconds": round(seconds, 1)}))
    else:
        verdict = f"{len(failed)} beyond tolerance: {', '.join(failed)}" if failed else "all within tolerance"
        print(f"{count} records, {verdict}; {seconds:.1f} s")
    return 1 if failed else 0


def make_records(a: argparse.Namespace) -> int:
    if a.bundle is not None:
        a.refuse("--record: expected no --bundle, found one; records are made with the reference")
    start = time.perf_counter()
    with needs_extra("the reference", "export"):
        from hart_edge.checks.golden import record_reference
    count, file = record_reference(a.folder), a.folder / RECORDS_FILE
    seconds = time.perf_counter() - start
    if a.json:
        print(json.dumps({"file": str(file), "records": count, "seconds": round(seconds, 1)}))
    else:
        print(f"{file}: {count} records; {seconds:.1f} s. Hold the checkpoint against them later or elsewhere with")
        print(f"    hart-edge golden {a.folder}")
    return 0


def results(a: argparse.Namespace) -> Iterator[RecordResult]:
    """Compare the reference, or a bundle, with the records; yields each result as it is made."""
    if a.bundle is not None:
        from hart_edge.checks.golden_bundle import check_bundle

        return check_bundle(a.folder, a.bundle)
    with needs_extra("the reference", "export"):
        from hart_edge.checks.golden import check_reference
    return check_reference(a.folder)
