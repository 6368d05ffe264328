"""The command line: `hart-edge COMMAND ...`, the same as `python -m hart_edge COMMAND ...`.

In: arguments. Out: what hart_edge/commands/ prints, and an exit status: 0 done, 1 an error or a failed check (one
message on standard error), 2 arguments that make no sense, 130 interrupted, 141 nobody reads the output any more.
Commands are imported when they are called, so `generate` needs nothing that only a workstation has.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hart_edge import __version__
from hart_edge.cli.engine_options import add_engine_arguments
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import HartEdgeError

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # the only name that argparse has for it

INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + the signal's number, as shells have it


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="hart-edge",
        description="HART image generation at the edge. Bundles are built with python -m export.build.",
        allow_abbrev=False,
    )
    p.add_argument("--version", action="version", version=f"hart-edge {__version__}")
    commands = p.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_generate(commands)
    _add_info(commands)
    _add_plan(commands)
    _add_bench(commands)
    _add_golden(commands)
    _add_engines(commands)
    _add_doctor(commands)
    _add_data(commands)
    _add_train(commands)
    _add_eval(commands)
    return p


def _add(commands: Commands, name: str, summary: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)


def _add_generate(commands: Commands) -> None:
    p = _add(commands, "generate", "Generate a PNG picture from a prompt; several prompts give several pictures.")
    p.add_argument("prompts", nargs="*", metavar="PROMPT", help="what to draw")
    p.add_argument("--bundle", type=Path, metavar="DIR", help="bundle folder (default: bundles/hart-emoji-int8)")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="0 to 2**64 - 1, of every picture (default: 0)")
    p.add_argument("--cfg-scale", type=float, metavar="X", help="guidance, 0 to 100 (default: the bundle's)")
    p.add_argument("--top-k", type=int, metavar="K", help="choose among the K likeliest codes (default: the bundle's)")
    p.add_argument(
        "--top-p",
        type=float,
        metavar="P",
        help="choose among the likeliest codes that share a probability of P, above 0 to 1 (default: the bundle's)",
    )
    p.add_argument(
        "--smooth",
        action=argparse.BooleanOptionalAction,
        help="mix codes instead of choosing one (default: the bundle's)",
    )
    p.add_argument("--threads", type=int, metavar="N", help="threads inside an operator (default: one a core)")
    p.add_argument("--low-memory", action="store_true", help="let every graph go after its last step: slower, smaller")
    p.add_argument(
        "--context",
        type=Path,
        metavar="FILE.npz",
        help="context (T, D) and context_mask (T,) in place of a prompt, for a bundle without a text model",
    )
    p.add_argument(
        "--out",
        type=Path,
        default=Path("picture.png"),
        metavar="FILE.png",
        help="picture file; several prompts give FILE-1.png, FILE-2.png, ... (default: picture.png)",
    )
    p.add_argument("--previews", type=Path, metavar="DIR", help="also write the picture as of every scale into DIR")
    p.add_argument("--json", action="store_true", help="print one JSON object a picture instead of text")


def _add_info(commands: Commands) -> None:
    p = _add(commands, "info", "Verify a bundle and show what is in it; or count a model's arithmetic.")
    p.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder; with --macs a checkpoint or a preset")
    p.add_argument("--macs", action="store_true", help="multiply-accumulates per component and scale")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def _add_plan(commands: Commands) -> None:
    p = _add(
        commands, "plan", "Say how much memory a bundle takes while it runs and is built; exit 1 if it does not fit."
    )
    p.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle folder")
    p.add_argument("--memory", required=True, metavar="SIZE", help="what the device has free: 8GiB, 512MiB, 4GB")
    p.add_argument("--low-memory", action="store_true", help="as generate --low-memory runs")
    p.add_argument("--workspace", default="0", metavar="SIZE", help="that the engine builder may use (default: 0)")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def _add_bench(commands: Commands) -> None:
    p = _add(commands, "bench", "Measure how fast bundles draw on this machine, side by side, graph by graph.")
    p.add_argument("bundle", type=Path, nargs="+", metavar="BUNDLE", help="bundle folder; ratios are to the first")
    p.add_argument("--reference", metavar="DIR|PRESET", help="measure the reference in PyTorch, float32, as well")
    p.add_argument("--prompt", default="man astronaut", help="what they draw (default: man astronaut)")
    p.add_argument("--pictures", type=int, default=5, metavar="N", help="timed a process, after one (default: 5)")
    p.add_argument("--rounds", type=int, default=1, metavar="N", help="processes of each, in turn (default: 1)")
    p.add_argument("--threads", type=int, metavar="N", help="threads inside an operator (default: one a core)")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def _add_golden(commands: Commands) -> None:
    p = _add(
        commands,
        "golden",
        "Hold a checkpoint, or a bundle built from it, against its golden records; exit 1 beyond tolerance.",
    )
    p.add_argument("folder", type=Path, metavar="DIR", help="checkpoint folder with golden.npz")
    p.add_argument(
        "--bundle",
        type=Path,
        metavar="BUNDLE",
        help="hold this bundle's loop against the records instead of the reference",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object a record instead of text")


def _add_engines(commands: Commands) -> None:
    p = _add(commands, "engines", "Make engines of a portable bundle for TensorRT or TensorRT-RTX.")
    p.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle of graphs for that target")
    p.add_argument("--target", choices=[str(x) for x in REGISTRY.engine_targets()], required=True)
    p.add_argument("--out", type=Path, metavar="DIR", help="folder of the result (default: BUNDLE-engines)")
    add_engine_arguments(p)
    p.add_argument("--json", action="store_true", help="print JSON objects instead of text")


def _add_doctor(commands: Commands) -> None:
    p = _add(
        commands,
        "doctor",
        "Show which targets this machine can use, and why not the others; exit 1 if none. With --gpu-check: hold "
        "engines against ONNX Runtime on this GPU and measure them; exit 1 beyond tolerance.",
    )
    p.add_argument("--gpu-check", type=Path, metavar="BUNDLE", help="bundle of TensorRT or TensorRT-RTX engines")
    p.add_argument("--reference", type=Path, metavar="GRAPHS", help="the bundle of graphs that they were made from")
    p.add_argument("--against", type=Path, metavar="BUNDLE", help="engines to compare speed with: FP16 beside INT8")
    p.add_argument("--mixed", type=Path, metavar="OUT", help="write a bundle that takes slower graphs from --against")
    p.add_argument("--prompt", default="man astronaut", help="what they draw (default: man astronaut)")
    p.add_argument("--pictures", type=int, default=10, metavar="N", help="that times are medians of (default: 10)")
    p.add_argument("--report", type=Path, metavar="FILE.json", help="write the report there as well")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def _add_train(commands: Commands) -> None:
    group = _add(
        commands, "train", "Train a part of a checkpoint. Several processes: accelerate launch -m hart_edge ..."
    )
    models = group.add_subparsers(dest="model", metavar="MODEL", required=True)
    p = _add(models, "tokenizer", "Train the hybrid tokenizer on DIR/train, validated on DIR/validation.")
    p.add_argument("--init", type=Path, metavar="DIR", help="begin with the weights of this tokenizer/ folder")
    _add_run(p)
    p = _add(models, "transformer", "Train the transformer on codes of DIR/train, validated on DIR/validation.")
    p.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help="the trained tokenizer/ folder")
    p.add_argument(
        "--init", type=Path, metavar="DIR", help="begin with the weights of this checkpoint, of any resolution"
    )
    p.add_argument(
        "--text-model", type=Path, metavar="DIR", help="begin with this text_model/ folder (default: of --init, or new)"
    )
    _add_run(p)
    p = _add(models, "evaluator", "Train the judge of hart-edge eval on DIR/train, validated on DIR/validation.")
    _add_run(p)


def _add_run(p: argparse.ArgumentParser) -> None:
    """What every training command takes."""
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of hart-edge data, or one like it")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    p.add_argument(
        "--recipe", type=Path, metavar="FILE.json", help="what to train and how (default: the shipped model)"
    )
    p.add_argument("--set", action="append", default=[], metavar="GROUP.NAME=VALUE", help="change one of the recipe's")
    p.add_argument(
        "--resume",
        nargs="?",
        const="newest",
        metavar="FILE",
        help="go on from the newest state in --out, or from this one; begins where there is none",
    )
    p.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="of the arithmetic (default: fp32)")
    p.add_argument("--threads", type=int, metavar="N", help="threads of each process (default: torch's choice)")
    p.add_argument("--log-seconds", type=float, default=60, metavar="S", help="between log lines (default: 60)")
    p.add_argument("--save-minutes", type=float, default=10, metavar="M", help="between states (default: 10)")
    p.add_argument("--look-steps", type=int, default=1000, metavar="N", help="between validations (default: 1000)")
    p.add_argument("--keep", type=int, default=2, metavar="N", help="states to keep (default: 2)")
    p.add_argument("--json", action="store_true", help="print one JSON object at the end instead of text")


def _add_eval(commands: Commands) -> None:
    p = _add(commands, "eval", "Measure checkpoints and bundles on DIR/validation and DIR/test, side by side.")
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of hart-edge data, or one like it")
    p.add_argument("--evaluator", type=Path, required=True, metavar="DIR", help="the trained evaluator/ folder")
    several = {"type": Path, "action": "append", "default": [], "metavar": "DIR"}
    p.add_argument("--checkpoint", **several, help="checkpoint to measure by the reference; may be repeated")
    p.add_argument("--bundle", **several, help="bundle to measure; may be repeated")
    p.add_argument("--only", choices=("reconstruction", "generation"), help="measure only this (default: both)")
    p.add_argument("--pictures", type=int, metavar="N", help="of each split, evenly spaced (default: all)")
    p.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the first picture, the next has N + 1 (default: 0)"
    )
    own = "default: the checkpoint's or bundle's own"
    p.add_argument("--cfg-scale", type=float, metavar="X", help=f"guidance, 0 to 100 ({own})")
    p.add_argument("--top-k", type=int, metavar="K", help=f"choose among the K likeliest codes ({own})")
    p.add_argument("--top-p", type=float, metavar="P", help=f"and of those among a probability of P ({own})")
    p.add_argument("--smooth", action=argparse.BooleanOptionalAction, help=f"mix codes instead of choosing one ({own})")
    p.add_argument("--inception", type=Path, metavar="FILE", help="your Inception weights, for the usual FID as well")
    p.add_argument("--threads", type=int, metavar="N", help="threads (default: torch's choice)")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def _add_data(commands: Commands) -> None:
    p = _add(commands, "data", "Make a training set from public packages.")
    p.add_argument("set", choices=["emoji"], help="emoji: about 10,000 pictures with captions, 200 MB")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for train/, validation/ and test/")
    p.add_argument(
        "--packages",
        type=Path,
        metavar="DIR",
        help="folder that holds the archives of `npm pack` (default: npm fetches them)",
    )
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status. Arguments that make no sense end in SystemExit(2), as argparse has it."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a prompt that the terminal's encoding lacks is no error
    p = parser()
    a = p.parse_args(arguments)
    a.given = list(sys.argv[1:] if arguments is None else arguments)
    if a.command == "generate" and bool(a.prompts) == (a.context is not None):
        p.error("generate: expected a PROMPT, or --context FILE.npz for a bundle without a text model")
    try:
        status = _run(a)
        sys.stdout.flush()  # here, where a closed pipe can still be told from an error
        return status
    except BrokenPipeError:  # `hart-edge info BUNDLE | head -1`
        _drop_output()
        return BROKEN_PIPE
    except (HartEdgeError, OSError) as error:  # OSError: the disk is full, a folder may not be entered, ...
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _run(a: argparse.Namespace) -> int:
    match a.command:
        case "generate":
            from hart_edge.cli.generate import run
        case "info":
            from hart_edge.cli.info import run
        case "bench":
            from hart_edge.cli.bench import run
        case "plan":
            from hart_edge.cli.plan import run
        case "golden":
            from hart_edge.cli.golden import run
        case "engines":
            from hart_edge.cli.engines import run
        case "data":
            from hart_edge.cli.data import run
        case "train":
            from hart_edge.cli.train import run
        case "eval":
            from hart_edge.cli.eval import run
        case _:
            from hart_edge.cli.doctor import run
    return run(a)


def _drop_output() -> None:
    """Let what is still buffered go nowhere: the interpreter flushes at its end, and must not find the pipe closed."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
