"""The results of an experiment so far, on disk, so that an interrupted one can be resumed; and its table.

In: the options of the experiment, and runs named by setting and seed. Out: OUT/results.json, OUT/table.md, OUT/*.svg.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hart_edge.cli.train import StopSignal
from hart_edge.errors import HartEdgeError, InputError
from hart_edge.training.checkpoints import check_state, load_state, states, write_bytes
from hart_edge.training.loop import Habits, Task, make_accelerator, train

log = logging.getLogger(__name__)

Figures = dict[str, Any]


class Mean(NamedTuple):
    """value: the mean over the seeds; spread: their standard deviation, None for a single seed."""

    value: float
    spread: float | None

    def text(self, digits: int) -> str:
        spread = "" if self.spread is None else f" ± {self.spread:.{digits}f}"
        return f"{self.value:.{digits}f}{spread}"


class Notebook:
    """The results of an experiment in a folder. asked: all options that they depend on; other options are refused."""

    def __init__(self, folder: Path, asked: dict[str, Any]) -> None:
        self.folder, self.file = folder, folder / "results.json"
        self.asked = json.loads(json.dumps(asked))
        self.runs: dict[str, Figures] = {}
        if self.file.exists():
            try:
                found = json.loads(self.file.read_text("utf-8"))
                asked_then, self.runs = found["asked"], found["runs"]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self.file}: expected results of an experiment, found {error}; remove it") from error
            if asked_then != self.asked:
                names = [n for n in sorted(asked_then.keys() | self.asked) if asked_then.get(n) != self.asked.get(n)]
                raise InputError(
                    f"{self.file}: expected results of the same experiment, found others ({', '.join(names)} differ); "
                    "choose another --out, or the options of then"
                )

    def measure(self, setting: str, seed: int, run: Callable[[], Figures]) -> Figures:
        """The figures of a run: those measured before, or else those of run(), which are written at once."""
        key = f"{setting}, seed {seed}"
        if key not in self.runs:
            log.info("%s: %d runs done, now %s", self.folder, len(self.runs), key)
            self.runs[key] = run()
            self.write("results.json", json.dumps(self.as_json(), indent=2) + "\n")
        return self.runs[key]

    def as_json(self) -> dict[str, Any]:
        return {"asked": self.asked, "machine": machine(), "runs": self.runs}

    def write(self, name: str, text: str) -> None:
        write_bytes(self.folder / name, text.encode())


def machine() -> dict[str, Any]:
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def mean_of(values: Sequence[float]) -> Mean:
    return Mean(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is aligned left, the others right."""
    rule = ["---", *("--:" for _ in head[1:])]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rows))


def train_to_end(task: Task, folder: Path, habits: Habits, precision: str) -> None:
    """Train, from the newest state in the folder if there is one. Raises KeyboardInterrupt if it was asked to stop."""
    state = None
    if found := states(folder):
        state = load_state(found[-1])
        check_state(found[-1], state, task.recipe, task.fingerprint)
    with StopSignal() as stop:
        step = train(task, folder, make_accelerator(precision), habits, state, stop)
    if step < task.recipe.optimisation.steps:
        raise KeyboardInterrupt


def options(parser: argparse.ArgumentParser) -> None:
    """Add the options of every experiment."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of hart-edge data")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for runs, table and plot")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="runs of each setting (default: 2)")
    parser.add_argument("--threads", type=int, metavar="N", help="torch's threads")


def training_options(parser: argparse.ArgumentParser, recipe: str) -> None:
    """Add the options of an experiment that trains. recipe: a description of the default one."""
    parser.add_argument("--recipe", type=Path, metavar="FILE.json", help=f"of hart-edge train (default: {recipe})")
    parser.add_argument(
        "--set", action="append", default=[], metavar="GROUP.NAME=VALUE", help="change one of the recipe's values"
    )
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of training (default: fp32)")


def command(
    main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, arguments: list[str] | None
) -> int:
    """Run an experiment; return the exit status: 0, 1 after an error, 130 after an interruption."""
    a = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    try:
        if a.seeds < 1 or (a.threads is not None and a.threads < 1):
            raise InputError("--seeds, --threads: expected at least 1")
        if a.threads is not None:
            torch.set_num_threads(a.threads)
        main(a)
    except HartEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0
