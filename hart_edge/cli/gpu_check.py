"""`hart-edge doctor --gpu-check BUNDLE --reference GRAPHS`: engines on a GPU against ONNX Runtime, and their speed."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from hart_edge.bundle.verify import open_bundle
from hart_edge.checks.gpu_mix import mix
from hart_edge.checks.gpu_parity import Check, PictureCheck, check_graphs, check_pictures
from hart_edge.checks.gpu_timing import Timing, measure, runner_of, slower_graphs
from hart_edge.cli.generate import check_writable
from hart_edge.cli.progress import StatusLine
from hart_edge.engines.loading import load
from hart_edge.engines.onnxruntime.runner import OnnxRuntimeRunner
from hart_edge.engines.tensorrt.cuda import Cuda
from hart_edge.errors import HartEdgeError, InputError
from hart_edge.runtime.pipeline import Pipeline
from hart_edge.staging import hidden_name
from hart_edge.units import size

SEEDS = range(7, 10)

Measure = Callable[[Pipeline, int, str, int], Timing]


def run(a: argparse.Namespace, measure: Measure = measure) -> int:
    """measure: the function that times pictures."""
    if a.reference is None:
        raise InputError(
            "--gpu-check: expected --reference GRAPHS, the bundle of graphs that the engines were made from"
        )
    if a.report is not None:
        check_writable(a.report, "--report")
    with StatusLine() as bar:
        found = examine(a, bar, measure)
    if a.report is not None:
        write(a.report, found)
    print(json.dumps(found, indent=1) if a.json else "\n".join(as_text(found)))
    return 0 if found["ok"] else 1


def examine(a: argparse.Namespace, bar: StatusLine, measure: Measure) -> dict[str, Any]:
    """The whole report, ready for JSON."""
    bar.say("loading the bundles")
    graphs = reference(a.reference)
    engines, free = open_engines(a.gpu_check)
    runner = runner_of(engines)
    checks: list[Check] = []
    for check in check_graphs(engines, graphs, a.prompt):
        checks.append(check)
        bar.say(f"checked {len(checks)} of {len(engines.manifest.plan.steps)} steps")
    pictures: list[PictureCheck] = []
    for picture in check_pictures(engines, graphs, a.prompt, SEEDS):
        pictures.append(picture)
        bar.say(f"checked {len(pictures)} of {len(SEEDS)} pictures")
    bar.say("measuring")
    timing = measure(engines, free, a.prompt, a.pictures)
    found: dict[str, Any] = {
        "bundle": str(a.gpu_check),
        "reference": str(a.reference),
        "device": dataclasses.asdict(runner.device),
        "driver": runner.cuda.driver_version(),
        "library": f"{runner.library.facts.product} {runner.library.version}",
        "precision": str(engines.manifest.precision),
        "ok": all(check.ok for check in checks) and all(picture.ok for picture in pictures),
        "graphs": [dataclasses.asdict(check) | {"ok": check.ok} for check in checks],
        "pictures": [dataclasses.asdict(picture) | {"ok": picture.ok} for picture in pictures],
        "timing": dataclasses.asdict(timing),
        "against": None,
    }
    if a.against is not None:
        bar.say("measuring the engines it is compared with")
        found["against"] = compare_speed(a, engines, timing, measure)
    return found


def reference(folder: Any) -> Pipeline:
    """Graphs in ONNX Runtime on the processor, whatever target they were exported for."""
    bundle = open_bundle(folder)
    if bundle.manifest.target.engines is not None:
        raise InputError("--reference: expected a bundle of graphs, found engines; name the bundle they were made from")
    return Pipeline(bundle, OnnxRuntimeRunner(bundle))


def open_engines(folder: Any) -> tuple[Pipeline, int]:
    """A pipeline, and the bytes that were free on the device before it was loaded."""
    bundle = open_bundle(folder)
    if bundle.manifest.target.engines is None:
        raise InputError(f"--gpu-check: expected a bundle of engines, found graphs for {bundle.manifest.target.name}; "
                         "build engines first: hart-edge engines")  # fmt: skip
    free = Cuda(str(bundle.manifest.target.name)).free_memory()
    return load(folder), free


def compare_speed(a: argparse.Namespace, engines: Pipeline, timing: Timing, measure: Measure) -> dict[str, Any]:
    """Compare INT8 with FP16: which graphs INT8 does not speed up; --mixed writes a bundle with those at FP16."""
    other, free = open_engines(a.against)
    theirs = measure(other, free, a.prompt, a.pictures)
    slower = slower_graphs(timing, theirs)
    if slower and a.mixed is not None:
        mix(engines.bundle, other.bundle, slower, a.mixed)
    return {
        "bundle": str(a.against),
        "precision": str(other.manifest.precision),
        "timing": dataclasses.asdict(theirs),
        "slower": slower,
        "mixed": str(a.mixed) if slower and a.mixed is not None else None,
    }


def as_text(found: dict[str, Any]) -> list[str]:
    """A report in Markdown, to paste."""
    device, timing = found["device"], found["timing"]
    steps = [
        (each["graph"], "" if each["scale"] is None else str(each["scale"]), f"{each['error']:.1e}", each["tensor"],
         f"{each['tolerance']:.0e}", "" if each["agreement"] is None else f"{each['agreement']:.0%}",
         "ok" if each["ok"] else "FAILED")
        for each in found["graphs"]
    ]  # fmt: skip
    scales = [
        ("around" if scale is None else str(scale), f"{ms:.2f}", "yes" if scale in timing["captured"] else "no")
        for scale, ms in timing["scales"]
    ]
    lines = [
        f"{device['name']}, {device['architecture']}, {size(device['memory'])}; {found['library']}; CUDA driver "
        f"{found['driver'] // 1000}.{found['driver'] % 1000 // 10}; {found['bundle']} at {found['precision']}, batch 1",
        "",
        *markdown(("graph", "scale", "error", "of", "tolerance", "same codes", "verdict"), steps),
        "",
        "error: the largest difference from ONNX Runtime; of: the tensor. tolerance: what is allowed. same codes: the "
        "share of tokens for which both choose the same one.",
        "",
        *markdown(("scale", "ms", "CUDA graph"), scales),
        "",
        "ms: median of all steps of a scale. CUDA graph: whether they were captured as one. around: before the first "
        "scale and after the last.",
        "",
        f"a picture: {timing['picture']:.1f} ms, median of {timing['pictures']} after 3; memory on the device "
        f"{size(timing['memory'])}, of it buffers {size(timing['buffers'])}, activations {size(timing['activations'])}",
        *(f"picture, seed {each['seed']}: {each['failure'] or outcome(each)}" for each in found["pictures"]),
    ]  # fmt: skip
    if found["against"] is not None:
        lines += verdict(found)
    return [*lines, "", "all within tolerance" if found["ok"] else "FAILED: see the lines above"]


def outcome(picture: dict[str, Any]) -> str:
    return f"mean difference {picture['difference']:.2f} of 255, {'ok' if picture['ok'] else 'FAILED'}"


def verdict(found: dict[str, Any]) -> list[str]:
    """The comparison with another precision in words, one line for each graph that is slower."""
    mine, other = found["precision"], found["against"]
    theirs = other["timing"]["picture"]
    lines = ["", f"{mine} {found['timing']['picture']:.1f} ms a picture, {other['precision']} {theirs:.1f} ms"]
    if not other["slower"]:
        return [*lines, f"{mine} is faster in every graph"]
    for name, (ms, less) in other["slower"].items():
        lines.append(f"{mine} is slower than {other['precision']} in {name}: {ms:.2f} ms against {less:.2f} ms")
    if other["mixed"] is not None:
        return [*lines, f"{other['mixed']}: these graphs at {other['precision']}, the others at {mine}"]
    return [*lines, f"drop {mine} there: --mixed OUT writes a bundle that takes these graphs from {other['bundle']}"]


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]


def write(file: Any, found: dict[str, Any]) -> None:
    part = file.with_name(hidden_name(file.parent, file.name, ".part"))
    try:
        part.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        part.replace(file)
    except OSError as error:
        raise HartEdgeError(f"--report {file}: could not be written ({error}); name another file") from error
    finally:
        part.unlink(missing_ok=True)
