"""`hart-edge engines BUNDLE --target ...`: engines of a portable bundle, on the machine that will run them or another.

Needs numpy and the engine library; neither torch nor onnx.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from hart_edge.bundle.card import describe_machine, read_hints, write_card
from hart_edge.bundle.manifest import Manifest, Target
from hart_edge.bundle.verify import open_bundle
from hart_edge.bundle.writer import bundle_name, unfinished_folder
from hart_edge.cli.command import Commands, new_command
from hart_edge.cli.engine_options import add_engine_arguments, engine_settings
from hart_edge.cli.progress import EngineLine
from hart_edge.cli.tables import table
from hart_edge.engines.bundle_build import EngineJob, build_engines, check_portable, engine_reports
from hart_edge.engines.registry import REGISTRY
from hart_edge.units import size


def add(commands: Commands) -> None:
    p = new_command(commands, "engines", "Make engines of a portable bundle for TensorRT or TensorRT-RTX.", run)
    p.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle of graphs for that target")
    p.add_argument("--target", choices=[str(x) for x in REGISTRY.engine_targets()], required=True)
    p.add_argument("--out", type=Path, metavar="DIR", help="folder of the result (default: BUNDLE-engines)")
    add_engine_arguments(p)
    p.add_argument("--json", action="store_true", help="print JSON objects instead of text")


def run(a: argparse.Namespace) -> int:
    target = Target(a.target)
    library = REGISTRY.builder(target)
    settings = library.prepare(engine_settings(a))
    bundle = open_bundle(a.bundle)
    check_portable(bundle.manifest, target, settings, library)
    out = a.out or a.bundle.resolve().with_name(f"{a.bundle.resolve().name}-engines")
    command = shlex.join(a.typed)

    def card(manifest: Manifest, seconds: float) -> str:
        return write_card(manifest, describe_machine(), seconds, command, hints=read_hints(bundle.folder))

    name = bundle_name(out, random=bundle.manifest.random)
    job = EngineJob(bundle.folder, bundle.manifest, target, out, name, settings, card)
    begin = time.monotonic()
    try:
        with EngineLine(as_json=a.json) as line:
            manifest = build_engines(job, library, line.progress, line.done)
    except BaseException:
        kept = unfinished_folder(out)
        if kept.is_dir():
            print(f"finished engines are kept in {kept}; the same command goes on from there", file=sys.stderr)
        raise
    found = summary(manifest, out, time.monotonic() - begin)
    print(json.dumps(found) if a.json else "\n".join(as_text(found)))
    return 0


def summary(manifest: Manifest, out: Path, seconds: float) -> dict[str, Any]:
    """What was built, ready for JSON."""
    engines = manifest.target.engines
    assert engines is not None  # this command makes them
    keys = ("engine_bytes", "weight_bytes", "layers", "layers_by_precision", "fates", "activation_bytes")
    reports = engine_reports(out, manifest)
    return {
        "bundle": str(out),
        "target": str(manifest.target.name),
        "version": engines.version,
        "architectures": list(engines.architectures),
        "bytes": sum(entry.bytes for entry in manifest.files.values()),
        "seconds": round(seconds, 1),
        "components": {name: {key: report.get(key) for key in keys} for name, report in reports.items()},
    }


def as_text(found: dict[str, Any]) -> list[str]:
    rows = []
    for name, each in found["components"].items():
        precisions = ", ".join(f"{count} {name}" for name, count in (each["layers_by_precision"] or {}).items())
        fates = ", ".join(f"{count} {name}" for name, count in (each["fates"] or {}).items())
        activations = max(each["activation_bytes"] or [0])
        numbers = (size(each["engine_bytes"]), size(each["weight_bytes"] or 0), size(activations))
        rows.append((name, *numbers, str(each["layers"]), precisions, fates))
    head = ("engine", "bytes", "weights", "scratch", "layers", "precisions", "ONNX nodes")
    return [
        "",
        *table(head, rows, frozenset({"bytes", "weights", "scratch", "layers"})),
        "",
        "bytes: of the engine's file. weights: of that, as the builder reports. scratch: the most that a run needs.",
        "layers, precisions: of the engine. ONNX nodes: what became of the graph's nodes (docs/engines.md).",
        "",
        f"{found['bundle']}: {found['target']} {found['version']} for {', '.join(found['architectures'])}, "
        f"{size(found['bytes'])} in {found['seconds']:.0f} s",
    ]
