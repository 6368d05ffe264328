"""How much pictures change with the number of threads: the first number compared with each other one.

    python -m benchmarks.threads bundles/hart-emoji-int8 bundles/hart-emoji-fp32 --threads 1 2 4

Every prompt of the calibration set is drawn once with its own seed. Differences are in 8-bit steps, 0 to 255.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from hart_edge.calib.calibrate.prompts import read_prompts
from hart_edge.engines.loading import load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2, 4])
    arguments = parser.parse_args()
    prompts = read_prompts()
    first, *others = arguments.threads
    print("| bundle | threads | pictures | byte-identical | largest mean difference |")
    print("|---|---|--:|--:|--:|")
    for bundle in arguments.bundles:
        drawn = {
            threads: np.array(load(bundle, threads=threads).generate(prompts, seed=range(len(prompts))), np.float64)
            for threads in arguments.threads
        }
        for threads in others:
            means = np.abs(drawn[threads] - drawn[first]).mean((1, 2, 3))
            print(f"| {bundle.name} | {first}, {threads} | {len(means)} | {(means == 0).sum()} | {means.max():.2f} |")


if __name__ == "__main__":
    main()
