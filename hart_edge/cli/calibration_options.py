"""The options that say what INT8 ranges are made of, shared by `hart-edge build` and `hart-edge calibrate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from hart_edge.calib.calibrate.range_rules import RangeRule


def add_calibration_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--prompts", type=Path, help="calibration prompts, one a line (default: the set that comes along)")
    p.add_argument("--contexts", type=Path, help="npz of calibration contexts, for a checkpoint without text_model/")
    p.add_argument(
        "--range-rule",
        "--observer",  # its former name
        type=RangeRule,
        choices=list(RangeRule),
        help="rule that makes ranges, for every component (default: each its own, docs/int8.md)",
    )
