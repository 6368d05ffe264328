"""The curves of training runs, from what they wrote for TensorBoard, as SVG.

    python -m benchmarks.curves runs/tokenizer --figures validation/continuous_psnr validation/discrete_psnr \
        --title "hart-emoji: the tokenizer" --unit "PSNR, dB" --out docs/images/tokenizer.svg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from benchmarks.experiments.chart import Curve, chart


def curve_of(run: Path, figure: str) -> Curve:
    """A figure of a run against its steps. Where a run was taken up again, what it wrote later counts."""
    events = EventAccumulator(str(run / "tensorboard"), {"scalars": 0})
    events.Reload()
    known = events.Tags()["scalars"]
    if figure not in known:
        raise ValueError(f"{run}: expected one of {', '.join(sorted(known)) or 'no figures at all'}, found {figure}")
    latest = {event.step: event.value for event in events.Scalars(figure)}
    return Curve(figure.rpartition("/")[2], [(step, latest[step], 0.0) for step in sorted(latest)])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="--out of hart-edge train")
    parser.add_argument("--figures", nargs="+", required=True, metavar="NAME", help="as TensorBoard shows them")
    parser.add_argument("--title", required=True)
    parser.add_argument("--unit", required=True, help="what the vertical axis shows")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.svg")
    options = parser.parse_args(arguments)
    try:
        curves = [curve_of(options.run, figure) for figure in options.figures]
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(chart(options.title, "steps", options.unit, curves), "utf-8")
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
