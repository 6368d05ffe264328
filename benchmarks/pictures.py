"""Time and memory of one picture, for bundles side by side in the same run.

    python -m benchmarks.pictures bundles/hart-emoji-fp32 bundles/hart-emoji-int8

Each bundle runs in a process of its own, so that peak memory is its own. Rounds alternate between the bundles, and
the table gives medians and the ratio to the first bundle, because machines are shared and noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

PROMPT = "man astronaut"
MEASURE = """
import json, resource, sys, time
begin = time.perf_counter()
from runtime.pipeline import load
pipeline = load(sys.argv[1], threads=int(sys.argv[2]) or None)
loaded = time.perf_counter()
first = pipeline.generate(sys.argv[3], seed=7)
warm = time.perf_counter()
times = []
for _ in range(int(sys.argv[4])):
    start = time.perf_counter()
    pipeline.generate(sys.argv[3], seed=7)
    times.append(time.perf_counter() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"open": loaded - begin, "first": warm - loaded, "times": times, "peak": peak}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5, help="processes per bundle (default 5)")
    parser.add_argument("--pictures", type=int, default=5, help="timed pictures per process, after one (default 5)")
    parser.add_argument("--threads", type=int, default=0, help="threads inside an operator (default: one a core)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    runs: dict[Path, list[dict]] = {bundle: [] for bundle in arguments.bundles}
    for _ in range(arguments.rounds):
        for bundle in arguments.bundles:
            measured = [str(bundle), str(arguments.threads), PROMPT, str(arguments.pictures)]
            command = [sys.executable, "-c", MEASURE, *measured]
            runs[bundle].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    rows = [
        {
            "bundle": str(bundle),
            "bytes": sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()),
            "open_s": statistics.median(run["open"] for run in found),
            "first_s": statistics.median(run["first"] for run in found),
            "picture_s": statistics.median(time for run in found for time in run["times"]),
            "peak_bytes": max(run["peak"] for run in found),
        }
        for bundle, found in runs.items()
    ]
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    if arguments.json:
        print(json.dumps({"machine": machine, "prompt": PROMPT, "rounds": arguments.rounds, "rows": rows}))
        return
    print(f"{machine}; medians of {arguments.rounds} processes of {arguments.pictures} pictures, batch 1 with guidance")
    print("| bundle | MB | open, s | first picture, s | picture, s | against the first | peak, MB |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        print(
            f"| {Path(row['bundle']).name} | {row['bytes'] / 1e6:.1f} | {row['open_s']:.2f} | {row['first_s']:.2f} "
            f"| {row['picture_s']:.3f} | {rows[0]['picture_s'] / row['picture_s']:.2f}x "
            f"| {row['peak_bytes'] / 1e6:.0f} |"
        )


if __name__ == "__main__":
    main()
