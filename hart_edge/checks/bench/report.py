"""Bundles and the reference side by side: every measurement in a process of its own, in turn, as one report.

In: what to measure. Out: a dictionary that JSON can hold, and its tables.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from hart_edge.bundle.card import describe_machine
from hart_edge.bundle.costs import Costs, StepCost
from hart_edge.bundle.plan import tokens_of
from hart_edge.bundle.settings import Settings, Speed
from hart_edge.bundle.verify import Bundle, open_bundle
from hart_edge.calib.scheme import Scheme
from hart_edge.checks.bench.measure import Measured, measure_bundle, measure_reference
from hart_edge.checks.bench.peak import FLOAT32, INT8
from hart_edge.engines.loading import thread_count
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import EngineError, InputError
from hart_edge.runtime.settings import check_settings

INTEGER = frozenset(scheme for scheme in Scheme if scheme.unsigned)  # schemes whose products are integers on a CPU
SUBJECTS = (
    "bundle",
    "MB",
    "open, s",
    "first picture, s",
    "picture, s",
    "loop, s",
    "decoder, s",
    "same prompt again, s",
    "against the first",
    "peak, MB",
)
GRAPHS = ("graph", "scheme", "runs", "ms", "of the picture", "GMAC", "GMAC/s", "of the peak")
SCALES = ("scale", "tokens", "ms", "of the picture", "GMAC", "GMAC/s")

SUBJECT_NOTE = (
    "MB: the folder. open: until the first picture may begin, every file verified. first picture: with all that is "
    "loaded for it. picture: each further one of a new prompt, from prompt to pixels; loop: of that, all before the "
    "decoder. same prompt again: with another seed. against the first: how many times as fast as the first bundle, by "
    "pictures of a new prompt. peak: most resident memory of the process."
)
GRAPH_NOTE = (
    "runs, ms, of the picture: how often a graph runs for a picture, how long in all, its share. GMAC: 10^9 "
    "multiply-accumulates, both branches of the guidance. of the peak: of the highest rate that was seen here "
    "in the graph's arithmetic, {peak}: of a matrix product in ONNX Runtime, measured right after the pictures, or of "
    "a graph where that was higher."
)
SCALE_NOTE = "scale: all that runs for its tokens; what comes before the first and after the last is in no line."


@dataclass(frozen=True)
class Asked:
    """pictures: timed in each process, after one. threads: None for one a core."""

    bundles: tuple[Path, ...]
    speeds: tuple[Speed, ...]  # that every bundle is measured at
    reference: Path | str | None  # a checkpoint's folder, or a preset's name
    prompt: str
    pictures: int
    rounds: int
    threads: int | None


@dataclass(frozen=True)
class Subject:
    """A bundle at a speed. steps: what those of the speed's plan take."""

    bundle: Bundle
    speed: Speed
    steps: tuple[StepCost, ...]

    @property
    def name(self) -> str:
        return str(self.bundle.folder) + ("" if self.speed is Speed.EXACT else f", {self.speed}")


def measure(asked: Asked, say: Callable[[str], None], costs_of: Callable[[Bundle], Costs]) -> dict[str, Any]:
    """costs_of: tells what the steps of a bundle take. Raises InputError, BundleError, EngineError, and what a
    measurement raises."""
    for name, value in (("--pictures", asked.pictures), ("--rounds", asked.rounds)):
        if value < 1:
            raise InputError(f"{name}: expected at least 1, found {value}")
    bundles = [open_bundle(folder) for folder in asked.bundles]  # all are checked before the first is measured
    for folder, bundle in zip(asked.bundles, bundles, strict=True):
        target = bundle.manifest.target.name
        if REGISTRY[target].builder is not None:
            raise InputError(f"{folder}: built for {target}; measure its engines with hart-edge doctor --gpu-check")
        for speed in asked.speeds:
            check_settings(bundle.manifest.sampling, Settings(speed=speed), speeds=bundle.manifest.plans)
    measured = [Subject(bundle, speed, costs_of(bundle).at(speed)) for bundle in bundles for speed in asked.speeds]
    thread_count(asked.threads)
    given = asked.prompt, asked.pictures, asked.threads
    arithmetics = {} if asked.reference is None else {"float32": False, "bfloat16": True}
    runs: list[list[Measured]] = [[] for _ in (*measured, *arithmetics)]
    for turn in range(asked.rounds):
        for found, each in zip(runs, measured, strict=False):
            say(f"round {turn + 1} of {asked.rounds}: {each.name}")
            found.append(_apart(measure_bundle, each.bundle.folder, each.speed, *given))
        for found, (name, bf16) in zip(runs[len(measured) :], arithmetics.items(), strict=True):
            say(f"round {turn + 1} of {asked.rounds}: the reference in {name}")
            found.append(_apart(measure_reference, asked.reference, bf16, *given))
    subjects: list[dict[str, Any]] = [
        {"name": each.name, "speed": each.speed, **_bundle_row(each, found)}
        for each, found in zip(measured, runs, strict=False)
    ]
    for found, name in zip(runs[len(measured) :], arithmetics, strict=True):
        subjects.append({"name": f"torch, {name}, {asked.reference}", "bytes": None, **_times(found)})
    for subject in subjects:
        subject["against_the_first"] = subjects[0]["picture_s"] / subject["picture_s"]
    return {
        "machine": describe_machine(),
        "threads": asked.threads,
        "prompt": asked.prompt,
        "pictures": asked.pictures,
        "rounds": asked.rounds,
        "subjects": subjects,
    }


def _apart(work: Callable[..., Any], *given: Any) -> Any:
    """The result of work(*given) in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(work, *given).result()
        except BrokenProcessPool as error:
            raise EngineError(
                f"{given[0]}: the process that measured it was ended from outside, as happens when memory runs out; "
                "see hart-edge plan for what a bundle takes"
            ) from error


def _times(runs: Sequence[Measured]) -> dict[str, Any]:
    """The decoder is the last step, the loop all before it."""
    steps = [picture for run in runs for picture in run.steps]
    return {
        "open_s": median(run.opened for run in runs),
        "first_s": median(run.first for run in runs),
        "picture_s": median(seconds for run in runs for seconds in run.pictures),
        "loop_s": median(sum(picture[:-1]) for picture in steps),
        "decoder_s": median(picture[-1] for picture in steps),
        "again_s": median(again) if (again := [seconds for run in runs for seconds in run.again]) else None,
        "peak_bytes": max(run.peak for run in runs),
    }


def _bundle_row(subject: Subject, runs: Sequence[Measured]) -> dict[str, Any]:
    m = subject.bundle.manifest
    steps, work = m.plans[subject.speed].steps, [step.macs for step in subject.steps]
    seconds = [median(picture[index] for run in runs for picture in run.steps) for index in range(len(steps))]
    times = _times(runs)
    peak = {kind: max(run.products[kind] for run in runs) for kind in (FLOAT32, INT8)}

    def group(chosen: list[int]) -> dict[str, Any]:
        taken, macs = sum(seconds[index] for index in chosen), sum(work[index] for index in chosen)
        return {"seconds": taken, "share": taken / times["picture_s"], "macs": macs, "macs_per_second": macs / taken}

    graphs = []
    for component in m.components:
        chosen = [index for index, step in enumerate(steps) if step.graph == component.name]
        if chosen:  # the encoder draws nothing
            found = group(chosen)
            kind = INT8 if component.scheme in INTEGER else FLOAT32
            peak[kind] = max(peak[kind], found["macs_per_second"])  # a graph may show more than products did
            name = {"graph": str(component.name), "scheme": component.scheme, "runs": len(chosen)}
            graphs.append({**name, **found, "arithmetic": kind})
    for graph in graphs:
        graph["share_of_peak"] = graph["macs_per_second"] / peak[graph["arithmetic"]]
    scales = []
    for scale, tokens in enumerate(tokens_of(m.plans[subject.speed], m.patch_nums)):
        chosen = [index for index, step in enumerate(steps) if step.scale == scale]
        scales.append({"scale": scale, "tokens": tokens, **group(chosen)})
    size = sum(path.stat().st_size for path in subject.bundle.folder.rglob("*") if path.is_file())
    return {"bytes": size, **times, "peak_macs_per_second": peak, "graphs": graphs, "scales": scales}


def as_markdown(report: dict[str, Any]) -> list[str]:
    """The lines of its tables, each with what its columns mean."""
    threads = "one thread a core" if report["threads"] is None else f"{report['threads']} threads"
    lines = [
        f"{report['machine']}; {threads}; medians of {report['rounds']} x {report['pictures']} pictures after a "
        "first, batch 1 with guidance",
        "",
        *_head(SUBJECTS, left=1),
    ]
    for each in report["subjects"]:
        size = "" if each["bytes"] is None else f"{each['bytes'] / 1e6:.1f}"
        times = [f"{each[key]:.3f}" for key in ("open_s", "first_s", "picture_s", "loop_s", "decoder_s")]
        times.append("" if each["again_s"] is None else f"{each['again_s']:.3f}")
        compared = f"{each['against_the_first']:.2f}x", f"{each['peak_bytes'] / 1e6:.0f}"
        lines.append(_row(each["name"], size, *times, *compared))
    lines += ["", SUBJECT_NOTE]
    for each in report["subjects"]:
        if "graphs" not in each:
            continue
        lines += ["", each["name"], "", *_head(GRAPHS, left=2)]
        for graph in each["graphs"]:
            part = f"{graph['share_of_peak']:.0%}"
            lines.append(_row(graph["graph"], graph["scheme"], str(graph["runs"]), *_cells(graph), part))
        peak = " and ".join(f"{value / 1e9:.0f} in {name}" for name, value in each["peak_macs_per_second"].items())
        lines += ["", GRAPH_NOTE.format(peak=peak), "", *_head(SCALES, left=0)]
        lines += [_row(str(scale["scale"]), str(scale["tokens"]), *_cells(scale)) for scale in each["scales"]]
        lines += ["", SCALE_NOTE]
    return lines


def _cells(group: dict[str, Any]) -> list[str]:
    rates = f"{group['macs'] / 1e9:.3f}", f"{group['macs_per_second'] / 1e9:.1f}"
    return [f"{1000 * group['seconds']:.1f}", f"{group['share']:.0%}", *rates]


def _head(names: Sequence[str], left: int) -> list[str]:
    """left: columns that are not numbers."""
    return [_row(*names), "|" + "|".join("---" if index < left else "--:" for index in range(len(names))) + "|"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
