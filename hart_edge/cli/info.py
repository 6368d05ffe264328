"""`hart-edge info BUNDLE`: what a bundle holds, after every byte of it has been verified."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hart_edge.bundle.card import read_hints
from hart_edge.bundle.manifest import Engines, Instruction, Manifest
from hart_edge.bundle.quality import in_words
from hart_edge.bundle.settings import SETTINGS, Sampling, Speed
from hart_edge.bundle.verify import Bundle, open_bundle
from hart_edge.cli.command import Commands, needs_extra, new_command
from hart_edge.cli.tables import table
from hart_edge.units import size

HEAD = ("component", "precision", "scheme", "parameters", "bytes", "error", "of")
NUMBERS = frozenset({"parameters", "bytes", "error"})


def add(commands: Commands) -> None:
    p = new_command(commands, "info", "Verify a bundle and show what is in it; or count a model's arithmetic.", run)
    p.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder; with --macs a checkpoint or a preset")
    p.add_argument("--macs", action="store_true", help="multiply-accumulates per component and scale")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def run(a: argparse.Namespace) -> int:
    if a.macs:
        with needs_extra("counting arithmetic", "export"):
            from hart_edge.cli.macs import run as run_macs

        return run_macs(a)
    bundle = open_bundle(a.bundle)
    if a.json:
        print(json.dumps(as_json(bundle), indent=1))
    else:
        print("\n".join(as_text(bundle)))
    return 0


def as_text(bundle: Bundle) -> list[str]:
    """The lines that a person reads."""
    m, hints = bundle.manifest, read_hints(bundle.folder)
    rows = []
    for c in m.components:
        numbers = (f"{c.parameters:,}", f"{c.bytes:,}", f"{c.max_error:.1e}")
        rows.append((str(c.name), str(c.precision), c.scheme, *numbers, c.worst_tensor))
    parameters, graphs = sum(c.parameters for c in m.components), sum(c.bytes for c in m.components)
    rows.append(("all", str(m.precision), "", f"{parameters:,}", f"{graphs:,}", "", ""))
    facts = [
        ("bundle", str(bundle.folder)),
        ("name", m.name),
        ("sha256", f"{bundle.sha256}, of manifest.json"),
        ("target", str(m.target.name) + (", engines for " + _needs(m.target.engines) if m.target.engines else "")),
        ("image", f"{m.image_size} x {m.image_size} pixels, {len(m.patch_nums)} scales: {_row(m.patch_nums)}"),
        ("takes", f"a prompt of up to {m.context_tokens} tokens" if m.tokenizer is not None else
         f"a context array ({m.context_tokens}, {m.context_dim}); it holds no text model"),
        *([("styles", ", ".join(hints.styles) + "; a prompt ends with a comma and one of them")]
          if hints.styles else []),
        *([("examples", ", ".join(hints.examples))] if hints.examples else []),
        *([("instruction", in_words_of(m.tokenizer.instruction))] if m.tokenizer is not None else []),
        ("sampling", f"{_sampling(m.sampling)}; {len(m.residual.timesteps)} residual steps"),
        ("speeds", ", ".join(m.plans)),
        ("calibration", "none" if m.calibration is None else
         f"{m.calibration.prompts} prompts, ranges {m.calibration.ranges_sha256[:12]}"),
        ("quality", "not measured" if m.quality is None else in_words(m.quality)),
        ("licences", "; ".join(f"{each.part}: {each.spdx}" for each in m.licences) or "none stated"),
        ("built with", ", ".join(f"{name} {version}" for name, version in m.tools.items()) or "not stated"),
        ("files", f"{len(m.files)} of {size(_total(m))}, sizes and SHA-256 verified"),
    ]  # fmt: skip
    width = max(len(name) for name, _ in facts)
    return [
        *(f"{name:{width}}  {value}" for name, value in facts),
        "",
        *table(HEAD, rows, NUMBERS),
        "",
        "precision, scheme: how weights and arithmetic are held. parameters: of the checkpoint. bytes: of the file.",
        "error: the largest difference of an output from the reference at build time; of: the tensor where it was.",
    ]


def as_json(bundle: Bundle) -> dict[str, Any]:
    """The same for machines, keys as in docs/bundle.md."""
    m = bundle.manifest
    keys = ("name", "precision", "scheme", "parameters", "bytes", "max_error", "worst_tensor")
    return {
        "bundle": str(bundle.folder),
        "format_version": m.format_version,
        "name": m.name,
        "sha256": bundle.sha256,
        "precision": m.precision,
        "target": {"name": m.target.name, "engines": m.target.engines and vars(m.target.engines)},
        "image_size": m.image_size,
        "patch_nums": m.patch_nums,
        "takes": "context" if m.tokenizer is None else "prompt",
        **asdict(read_hints(bundle.folder)),
        "context_tokens": m.context_tokens,
        "context_dim": m.context_dim,
        "instruction": None
        if m.tokenizer is None or m.tokenizer.instruction is None
        else vars(m.tokenizer.instruction),
        "sampling": vars(m.sampling),
        "residual_steps": len(m.residual.timesteps),
        "speeds": list(m.plans),
        "calibration": None if m.calibration is None else vars(m.calibration),
        "quality": None if m.quality is None else asdict(m.quality),
        "components": [{key: getattr(c, key) for key in keys} for c in m.components],
        "parameters": sum(c.parameters for c in m.components),
        "bytes": _total(m),
        "licences": [vars(each) for each in m.licences],
        "tools": m.tools,
    }


def in_words_of(instruction: Instruction | None) -> str:
    """As in `171 tokens in front of every prompt, sha256 0123456789ab`."""
    if instruction is None:
        return "none"
    return f"{instruction.tokens} tokens in front of every prompt, sha256 {instruction.sha256[:12]}"


def _total(m: Manifest) -> int:
    return sum(entry.bytes for entry in m.files.values())


def _needs(engines: Engines) -> str:
    compatible = "" if engines.hardware_compatibility == "none" else f" ({engines.hardware_compatibility})"
    version = f"{engines.version}{' or later' if engines.version_compatible else ''}"
    return f"{', '.join(engines.architectures)}{compatible} on {engines.platform}, version {version}"


def _row(values: tuple[int, ...]) -> str:
    return " ".join(map(str, values))


def _sampling(sampling: Sampling) -> str:
    """What a caller may change: cfg_scale 4.5, smooth on; of a table one number where all scales share it."""
    shown = []
    for name in SETTINGS:
        value = getattr(sampling, name)
        if isinstance(value, tuple):
            shown.append(f"{name} {value[0] if len(set(value)) == 1 else f'({_row(value)})'}")
        elif isinstance(value, bool):
            shown.append(f"{name} {'on' if value else 'off'}")
        elif isinstance(value, Speed):
            shown.append(f"{name} {value}")
        else:
            shown.append(f"{name} {value:g}")
    return ", ".join(shown)
