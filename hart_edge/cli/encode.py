"""`hart-edge encode`: prompts in, what a bundle's text model makes of them out, for devices without one."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hart_edge.api import find_bundle
from hart_edge.cli.command import Commands, new_command
from hart_edge.cli.generate import check_files
from hart_edge.cli.progress import StatusLine
from hart_edge.engines.loading import load
from hart_edge.errors import HartEdgeError, InputError, border
from hart_edge.runtime.context import Context
from hart_edge.runtime.pipeline import Pipeline
from hart_edge.staging import staged_file

Load = Callable[..., Pipeline]


def add(commands: Commands) -> None:
    summary = "Write what a bundle's text model makes of prompts, for devices that have no text model."
    p = new_command(commands, "encode", summary, run)
    p.add_argument("prompts", nargs="+", metavar="PROMPT", help="what to draw")
    p.add_argument("--bundle", type=Path, metavar="DIR", help="bundle folder (default: bundles/hart-emoji-int8)")
    p.add_argument("--threads", type=int, metavar="N", help="threads inside an operator (default: one a core)")
    p.add_argument(
        "--out",
        type=Path,
        default=Path("context.npz"),
        metavar="FILE.npz",
        help="context (T, D) and context_mask (T,) of a prompt, for `generate --context`; (N, T, D) and (N, T) of "
        "several, for `build --contexts` (default: context.npz)",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(a: argparse.Namespace, load: Load = load) -> int:
    """load: the function that opens a bundle."""
    if a.out.suffix != ".npz":
        raise InputError(f"--out {a.out}: expected a name that ends with .npz, found {a.out.suffix or 'no ending'!r}")
    check_files([a.out])
    with StatusLine() as bar, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        bar.say("loading the bundle")
        pipeline = load(find_bundle(a.bundle), threads=a.threads, low_memory=False)
        contexts = []
        for number, prompt in enumerate(a.prompts, 1):
            bar.say(f"prompt {number} of {len(a.prompts)}")
            contexts.append(pipeline.encode(prompt))
    notes = [str(warning.message) for warning in caught]
    write_contexts(contexts, a.out)
    words = [int(context.mask.sum()) for context in contexts]
    if a.json:
        print(json.dumps({"file": str(a.out), "prompts": a.prompts, "tokens": words, "warnings": notes}))
    else:
        for note in notes:
            print(f"warning: {note}")
        tokens, dim = contexts[0].tokens.shape
        print(f"{a.out}: {len(contexts)} x ({tokens}, {dim}), of {', '.join(map(str, words))} tokens")
    return 0


def write_contexts(contexts: list[Context], file: Path) -> None:
    """One context as (T, D) and (T,), several as (N, T, D) and (N, T). Written beside the file and renamed."""
    tokens, mask = (np.stack([getattr(each, name) for each in contexts]) for name in ("tokens", "mask"))
    if len(contexts) == 1:
        tokens, mask = tokens[0], mask[0]
    with (
        border(HartEdgeError, file, "could not be written", "what was there before is unchanged"),
        staged_file(file.resolve()) as stream,
    ):
        np.savez(stream, context=tokens, context_mask=mask)
