"""The command line of `python -m export.build`: arguments in, a bundle and a report out."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from hart_edge.bundle.manifest import RANDOM_ENDING, Manifest, Precision, Target
from hart_edge.bundle.quality import in_words, limits_for
from hart_edge.calib.calibrate.range_rules import RangeRule
from hart_edge.calib.scheme import Int8Scheme
from hart_edge.cli.engine_options import add_engine_arguments, engine_settings
from hart_edge.engines.base import BuildProgress
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import HartEdgeError
from hart_edge.export.chain import SHIPPED_MODEL, BuildOptions, StepDone, build
from hart_edge.reference.presets import PRESETS
from hart_edge.runtime.allocator import map_large_blocks


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -m export.build", description="Build a bundle from a HART checkpoint.")
    p.add_argument(
        "--checkpoint",
        type=Path,
        default=SHIPPED_MODEL,
        help="folder with tokenizer/ llm/ text_model/ (default: the shipped model)",
    )
    p.add_argument("--preset", choices=sorted(PRESETS), help="a published shape, in place of a checkpoint")
    p.add_argument("--random-weights", action="store_true", help="fill the preset: for benchmarks and planning")
    p.add_argument("--precision", choices=[str(x) for x in Precision], default="int8")
    p.add_argument("--target", choices=[str(x) for x in Target], default="cpu")
    p.add_argument("--out", type=Path, help="bundle folder (default: bundles/NAME-PRECISION[-TARGET][-random])")
    p.add_argument("--cfg-scale", type=float, metavar="X", help="guidance of the bundle (default: the checkpoint's)")
    p.add_argument("--top-p", type=float, metavar="X", help="share of the likeliest codes that the bundle draws from")
    add_calibration_arguments(p)
    p.add_argument("--ranges", type=Path, help="calibration.json of an earlier build of the same weights")
    p.add_argument(
        "--int8-form",
        type=Int8Scheme,
        choices=list(Int8Scheme),
        default=Int8Scheme.MEASURED,
        help="how activations of INT8 layers are held on a CPU (default: as is fastest on this machine)",
    )
    p.add_argument(
        "--int8-budget",
        type=float,
        metavar="NATS",
        help="KL divergence of the logits beyond which layers are kept out of INT8 (default: --max-kl)",
    )
    p.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="PATTERN",
        help="keep weights out of INT8, as in transformer.blocks.0.*; may be repeated",
    )
    p.add_argument("--portable", action="store_true", help="graphs for tensorrt or tensorrt-rtx, and no engines yet")
    gate = p.add_argument_group("limits on the figures of every build (default: the precision's, docs/parity.md)")
    gate.add_argument("--min-top1", type=float, help="least top-1 agreement with the reference at any scale, 0 to 1")
    gate.add_argument("--max-kl", type=float, help="largest mean KL divergence from the reference at any scale, nats")
    gate.add_argument("--min-psnr", type=float, help="least PSNR of the decoder against the reference's, dB")
    add_engine_arguments(p)
    p.add_argument("--json", action="store_true", help="one JSON object a line instead of text")
    return p


def add_calibration_arguments(p: argparse.ArgumentParser) -> None:
    """What calibration is run on, and how ranges are made of it; `python -m calib.collect` has the same."""
    p.add_argument("--prompts", type=Path, help="calibration prompts, one a line (default: the set that comes along)")
    p.add_argument("--contexts", type=Path, help="npz of calibration contexts, for a checkpoint without text_model/")
    p.add_argument(
        "--observer",
        type=RangeRule,
        choices=list(RangeRule),
        help="rule that makes ranges, for every component (default: each its own, docs/int8.md)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a build; returns the exit status. Errors go to standard error, one message."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    p = parser()
    a = p.parse_args(given)
    if bool(a.preset) != a.random_weights:
        p.error("--preset and --random-weights go together: this project ships no weights for these shapes")
    suffix = ("" if a.target == "cpu" else f"-{a.target}") + (RANDOM_ENDING if a.preset else "")
    name = a.preset or a.checkpoint.resolve().name
    out = a.out or Path("bundles") / f"{name}-{a.precision}{suffix}"
    show = ProgressPrinter(as_json=a.json)
    map_large_blocks()
    begin = time.monotonic()
    try:
        options = BuildOptions(
            checkpoint=a.preset or a.checkpoint,
            out=out,
            precision=Precision(a.precision),
            target=Target(a.target),
            cfg_scale=a.cfg_scale,
            top_p=a.top_p,
            prompts=a.prompts,
            contexts=a.contexts,
            ranges=a.ranges,
            range_rule=a.observer,
            int8_scheme=a.int8_form,
            int8_budget=a.int8_budget,
            excluded=tuple(a.keep),
            engines=engine_settings(a),
            portable=a.portable,
            limits=limits_for(Precision(a.precision), a.min_top1, a.max_kl, a.min_psnr),
            command=shlex.join(["python", "-m", "export.build", *given]),
        )
        manifest = build(options, show)
    except HartEdgeError as error:
        show.finish_line()
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        show.finish_line()
        print(f"interrupted; nothing was written to {out}", file=sys.stderr)
        return 130
    report(manifest, out, time.monotonic() - begin, as_json=a.json)
    return 0


class ProgressPrinter:
    """Shows steps as they begin and end: a line each on a terminal, JSON when asked for, nothing otherwise."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json, self.terminal = as_json, sys.stdout.isatty() and not as_json
        self.open_line = False

    def __call__(self, event: str | StepDone | BuildProgress) -> None:
        if isinstance(event, BuildProgress):
            if self.terminal:
                share = f"{event.done} of {event.total}" if event.total > 1 else ""
                line = f"engine {event.component}: {event.phase} {share}"
                print(f"\r\033[K  {event.seconds:6.1f} s  {line[:90]}", end="", flush=True)
                self.open_line = True
            return
        if isinstance(event, str):
            if self.terminal:
                print(f"  {event} ...", end="", flush=True)
                self.open_line = True
            return
        if self.as_json:
            line = {"step": event.label, "seconds": round(event.seconds, 3), "bytes": event.size}
            print(json.dumps(line), flush=True)
        elif self.terminal:
            size = "" if event.size is None else f"{event.size / 1e6:9.1f} MB"
            print(f"\r\033[K  {event.seconds:6.1f} s {size:12}  {event.label}", flush=True)
            self.open_line = False

    def finish_line(self) -> None:
        if self.open_line:
            print(flush=True)


def report(manifest: Manifest, out: Path, seconds: float, *, as_json: bool) -> None:
    size = sum(entry.bytes for entry in manifest.files.values())
    if as_json:
        components = {
            c.name: {"precision": c.precision, "bytes": c.bytes, "max_error": c.max_error, "in": c.worst_tensor}
            for c in manifest.components
        }
        quality = None if manifest.quality is None else asdict(manifest.quality)
        line = {"bundle": str(out), "bytes": size, "seconds": round(seconds, 1), "components": components}
        print(json.dumps({**line, "quality": quality}))
        return
    worst = max(manifest.components, key=lambda component: component.max_error)
    print(
        f"{out}: {manifest.precision} for {manifest.target.name}, {size / 1e6:.1f} MB in {seconds:.0f} s; "
        f"largest error {worst.max_error:.1e} ({worst.name}, {worst.worst_tensor})"
    )
    if manifest.quality is not None:
        print(f"against the reference: {in_words(manifest.quality)}")
    if manifest.random:
        print("its weights are random: good for measuring time and memory, and for no picture")
    if manifest.target.engines is not None:
        print(f"engines for {', '.join(manifest.target.engines.architectures)}")
    elif REGISTRY[manifest.target.name].builder is not None:
        print(
            "a portable bundle: it holds graphs and no engines yet. On a machine with the engine library:\n"
            f"    hart-edge engines {out} --target {manifest.target.name}"
        )
