"""The C library compared with the Python runtime, on the same ONNX Runtime, in the same run.

    python -m benchmarks.native bundles/hart-emoji-int8 bundles/hart-emoji-fp32

Needs `make native` and a C compiler. Each of the two runs in a process of its own, in turn; the table has the medians
of the rounds. Times begin at the first line of the program: they include imports, but not the start of the interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime

ROOT = Path(__file__).parents[1]
PROMPT = "man astronaut"
PYTHON = """
import json, resource, sys, time
begin = time.perf_counter()
from hart_edge.engines.loading import load
pipeline = load(sys.argv[1], threads=int(sys.argv[3]) or None)
opened = time.perf_counter()
for event in pipeline.stream(sys.argv[2], seed=7):
    if event.scale == 0:
        first_scale = time.perf_counter()
first = time.perf_counter()
times = []
for _ in range(int(sys.argv[4])):
    start = time.perf_counter()
    pipeline.generate(sys.argv[2], seed=7)
    times.append(time.perf_counter() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"open": opened - begin, "first_scale": first_scale - begin, "first": first - begin, "times": times,
                  "peak": peak}))
"""


def compile_program(library: Path, folder: Path) -> Path:
    program = folder / "native"
    include = ROOT / "runtime" / "native" / "include"
    linked = [f"-L{library}", "-lhart_edge", f"-Wl,-rpath,{library}"]
    source = ROOT / "benchmarks" / "native.c"
    subprocess.run(["cc", "-O2", "-std=c99", f"-I{include}", source, *linked, "-o", program], check=True)
    return program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--library", type=Path, default=ROOT / "build" / "native", help="folder of libhart_edge.so")
    parser.add_argument("--rounds", type=int, default=7, help="processes of each (default 7)")
    parser.add_argument("--pictures", type=int, default=5, help="timed pictures per process, after one (default 5)")
    parser.add_argument("--threads", type=int, default=0, help="threads inside an operator (default: one a core)")
    arguments = parser.parse_args()
    (engine,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    environment = {**os.environ, "HART_EDGE_ONNXRUNTIME": str(engine), "PYTHONPATH": str(ROOT)}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, ONNX Runtime {onnxruntime.__version__}"
    print(f"{machine}; medians of {arguments.rounds} processes of {arguments.pictures} pictures, batch 1 with guidance")
    print("| bundle | | open, s | first scale after, s | first picture after, s | a further picture, s | peak, MB |")
    print("|---|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as folder:
        program = compile_program(arguments.library.resolve(), Path(folder))
        commands: dict[str, list[str]] = {"Python": [sys.executable, "-c", PYTHON], "C": [str(program)]}
        for bundle in arguments.bundles:
            given = [str(bundle), PROMPT, str(arguments.threads), str(arguments.pictures)]
            runs: dict[str, list[dict[str, Any]]] = {name: [] for name in commands}
            for _ in range(arguments.rounds):
                for name, command in commands.items():
                    done = subprocess.run([*command, *given], check=True, capture_output=True, env=environment)
                    runs[name].append(json.loads(done.stdout))
            for name, found in runs.items():
                cells = [statistics.median(run[key] for run in found) for key in ("open", "first_scale", "first")]
                cells.append(statistics.median(time for run in found for time in run["times"]))
                peak = max(run["peak"] for run in found) / 1e6
                print(f"| {bundle.name} | {name} | " + " | ".join(f"{each:.3f}" for each in cells) + f" | {peak:.0f} |")


if __name__ == "__main__":
    main()
