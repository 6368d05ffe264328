"""`hart-edge build`, the same as `python -m export.build`: a checkpoint in, a bundle and a report out."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from hart_edge.bundle.manifest import MANIFEST_FILE, RANDOM_ENDING, Manifest, Precision, Target
from hart_edge.bundle.plan import WHOLE
from hart_edge.bundle.quality import in_words, limits_for
from hart_edge.bundle.settings import DEFAULTS
from hart_edge.calib.scheme import Int8Scheme
from hart_edge.cli.calibration_options import add_calibration_arguments
from hart_edge.cli.command import Commands, needs_extra, new_command
from hart_edge.cli.engine_options import add_engine_arguments, engine_settings
from hart_edge.cli.instruction_options import add_instruction_arguments, instruction_of
from hart_edge.cli.progress import BuildLines
from hart_edge.cli.setting_options import add_setting_arguments, settings_of
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import BuildError, InputError
from hart_edge.reference.presets import PRESETS, SHIPPED_MODEL
from hart_edge.runtime.allocator import map_large_blocks
from hart_edge.units import size

if TYPE_CHECKING:
    from hart_edge.export.options import BuildOptions, Progress

    Build = Callable[[BuildOptions, Progress], Manifest]


def add(commands: Commands) -> None:
    p = new_command(commands, "build", "Build a bundle from a HART checkpoint.", run)
    p.add_argument(
        "--checkpoint",
        type=Path,
        default=SHIPPED_MODEL,
        help="folder with tokenizer/ llm/ text_model/ (default: the shipped model)",
    )
    p.add_argument("--preset", choices=sorted(PRESETS), help="a published shape, in place of a checkpoint")
    p.add_argument("--random-weights", action="store_true", help="fill the preset: for benchmarks and planning")
    add_instruction_arguments(p)
    p.add_argument("--with-text-model", action="store_true", help="a preset with a text model of the published size")
    p.add_argument("--precision", choices=[str(x) for x in WHOLE], default="int8")
    p.add_argument(
        "--text-precision",
        choices=[str(x) for x in Precision],
        help="of the text model (default: as --precision; docs/int8.md says when int4 is worth it)",
    )
    p.add_argument("--target", choices=[str(x) for x in Target], default="cpu")
    p.add_argument("--out", type=Path, help="bundle folder (default: bundles/NAME-PRECISION[-TARGET][-random])")
    add_setting_arguments(p, "the checkpoint's", DEFAULTS)
    add_calibration_arguments(p)
    p.add_argument("--ranges", type=Path, help="calibration.json of an earlier build of the same weights")
    p.add_argument(
        "--int8-scheme",
        "--int8-form",  # its former name
        type=Int8Scheme,
        choices=list(Int8Scheme),
        default=Int8Scheme.MEASURED,
        help="how activations of INT8 layers are held on a CPU (default: whichever is fastest on this machine)",
    )
    p.add_argument(
        "--int8-budget",
        type=float,
        metavar="NATS",
        help="KL divergence of the logits beyond which layers are kept out of INT8 (default: --max-kl)",
    )
    p.add_argument(
        "--exclude",
        "--keep",  # its former name
        action="append",
        default=[],
        metavar="PATTERN",
        help="keep weights out of INT8, as in transformer.blocks.0.*; may be repeated",
    )
    p.add_argument("--portable", action="store_true", help="graphs for tensorrt or tensorrt-rtx, and no engines yet")
    limits = p.add_argument_group("limits on the figures of every build (default: the precision's, docs/parity.md)")
    limits.add_argument("--min-top1", type=float, help="least top-1 agreement with the reference at any scale, 0 to 1")
    limits.add_argument("--max-kl", type=float, help="largest mean KL divergence from the reference at any scale, nats")
    limits.add_argument("--min-psnr", type=float, help="least PSNR of the decoder against the reference's, dB")
    add_engine_arguments(p)
    p.add_argument("--json", action="store_true", help="one JSON object a line instead of text")


def run(a: argparse.Namespace, build: Build | None = None) -> int:
    """build: the function that builds; by default export.chain's."""
    if bool(a.preset) != a.random_weights:
        a.refuse("--preset and --random-weights go together: this project ships no weights for these shapes")
    if a.with_text_model and not a.preset:
        a.refuse("--with-text-model is for a --preset: a checkpoint has its text model in text_model/")
    out = bundle_folder(a)
    try:
        with BuildLines(as_json=a.json) as show:
            with needs_extra("building", "export"):
                from hart_edge.export import chain
            options = build_options(a, out)
            if not a.json:
                print(announcement(options), file=sys.stderr)
            map_large_blocks()
            begin = time.monotonic()
            manifest = (build or chain.build)(options, show)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"nothing was written to {out}") from None
    report(manifest, out, time.monotonic() - begin, as_json=a.json)
    return 0


def bundle_folder(a: argparse.Namespace) -> Path:
    """--out, or bundles/NAME-PRECISION with -TARGET unless it is the cpu, and -random at the end."""
    if a.out is not None:
        return Path(a.out)
    suffix = ("" if a.target == "cpu" else f"-{a.target}") + (RANDOM_ENDING if a.preset else "")
    name = f"{a.preset}-text" if a.with_text_model else a.preset or a.checkpoint.resolve().name
    return Path("bundles") / f"{name}-{a.precision}{suffix}"


def build_options(a: argparse.Namespace, out: Path) -> BuildOptions:
    """What was asked for. Raises InputError for values out of range."""
    from hart_edge.export.options import BuildOptions

    try:
        return BuildOptions(
            checkpoint=a.preset or a.checkpoint,
            out=out,
            precision=Precision(a.precision),
            target=Target(a.target),
            instruction=instruction_of(a),
            with_text_model=a.with_text_model,
            text_precision=None if a.text_precision is None else Precision(a.text_precision),
            settings=settings_of(a, DEFAULTS),
            prompts=a.prompts,
            contexts=a.contexts,
            ranges=a.ranges,
            range_rule=a.range_rule,
            int8_scheme=a.int8_scheme,
            int8_budget=a.int8_budget,
            excluded=tuple(a.exclude),
            engines=engine_settings(a),
            portable=a.portable,
            limits=limits_for(Precision(a.precision), a.min_top1, a.max_kl, a.min_psnr),
            command=shlex.join(a.typed),
        )
    except BuildError as error:
        raise InputError(str(error)) from error


def announcement(options: BuildOptions) -> str:
    """What is built into which folder, whether a bundle is replaced, and how long it takes where that is known."""
    shipped = options.checkpoint == SHIPPED_MODEL
    model = f"the shipped model, {SHIPPED_MODEL.name}," if shipped else str(options.checkpoint)
    replaced = ", in place of the bundle there once it is complete" if (options.out / MANIFEST_FILE).is_file() else ""
    takes = "; 2 to 8 minutes on two cores, 1 GB of memory" if shipped and options.target is Target.CPU else ""
    return f"building {model} at {options.precision} for {options.target} into {options.out}{replaced}{takes}"


def report(manifest: Manifest, out: Path, seconds: float, *, as_json: bool) -> None:
    count = sum(entry.bytes for entry in manifest.files.values())
    if as_json:
        components = {
            c.name: {"precision": c.precision, "bytes": c.bytes, "max_error": c.max_error, "in": c.worst_tensor}
            for c in manifest.components
        }
        quality = None if manifest.quality is None else asdict(manifest.quality)
        line = {"bundle": str(out), "bytes": count, "seconds": round(seconds, 1), "components": components}
        print(json.dumps({**line, "quality": quality}))
        return
    worst = max(manifest.components, key=lambda component: component.max_error)
    print(
        f"{out}: {manifest.precision} for {manifest.target.name}, {size(count)} in {seconds:.0f} s; "
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
