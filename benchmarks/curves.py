"""The curves of a training as SVG, from what its runs wrote for TensorBoard. Several runs follow one another.

    python -m benchmarks.curves runs/tokenizer --figures validation/continuous_psnr validation/discrete_psnr \
        --title "hart-emoji: the tokenizer" --unit "PSNR, dB" --out docs/images/training_tokenizer.svg
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.experiments.chart import Curve, chart


def curve_of(runs: Sequence[Path], figure: str) -> Curve:
    """The curve of a figure over the steps of all runs together."""
    points: list[tuple[float, float, float]] = []
    before = 0
    for run in runs:
        latest = read(run, figure)
        points += [(before + step, latest[step], 0.0) for step in sorted(latest)]
        before += max(latest)
    return Curve(figure.rpartition("/")[2], points)


def read(run: Path, figure: str) -> dict[int, float]:
    """A figure of one run by its steps. Where the run was resumed, the later value of a step counts."""
    events = events_of(run)
    known = events.Tags()["scalars"]
    if figure not in known:
        raise ValueError(f"{run}: expected one of {', '.join(sorted(known)) or 'no figures at all'}, found {figure}")
    return {event.step: event.value for event in events.Scalars(figure)}


@functools.cache
def events_of(run: Path) -> EventAccumulator:
    """The events of a run, read once for all of its figures, since reading takes seconds."""
    return EventAccumulator(str(run / "tensorboard"), {"scalars": 0}).Reload()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="--out of hart-edge train")
    parser.add_argument("--figures", nargs="+", required=True, metavar="NAME", help="as TensorBoard shows them")
    parser.add_argument("--title", required=True)
    parser.add_argument("--unit", required=True, help="what the vertical axis shows")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.svg")
    options = parser.parse_args(arguments)
    try:
        curves = [curve_of(options.runs, figure) for figure in options.figures]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(chart(options.title, "steps", options.unit, curves), "utf-8")
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
