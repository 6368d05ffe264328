"""`hart-edge train WHAT`: a recipe and data in, a run's folder out; the log goes to standard error."""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import logging
import os
import signal
import sys
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from hart_edge.cli.command import Commands, needs_extra, new_command, new_parser
from hart_edge.cli.signals import ENDING
from hart_edge.cli.values import thread_number
from hart_edge.errors import HartEdgeError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from hart_edge.training.checkpoints import State
    from hart_edge.training.loop import Task

log = logging.getLogger(__name__)


def add(commands: Commands) -> None:
    group = new_command(
        commands, "train", "Train a part of a checkpoint. Several processes: accelerate launch -m hart_edge ...", run
    )
    models = group.add_subparsers(dest="model", metavar="MODEL", required=True)
    p = new_parser(models, "tokenizer", "Train the hybrid tokenizer on DIR/train, validated on DIR/validation.")
    p.add_argument("--init", type=Path, metavar="DIR", help="begin with the weights of this tokenizer/ folder")
    _add_run(p)
    p = new_parser(models, "transformer", "Train the transformer on codes of DIR/train, validated on DIR/validation.")
    p.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help="the trained tokenizer/ folder")
    p.add_argument(
        "--init", type=Path, metavar="DIR", help="begin with the weights of this checkpoint, of any resolution"
    )
    p.add_argument(
        "--text-model", type=Path, metavar="DIR", help="begin with this text_model/ folder (default: of --init, or new)"
    )
    _add_run(p)
    p = new_parser(models, "evaluator", "Train the judge of hart-edge eval on DIR/train, validated on DIR/validation.")
    _add_run(p)


def _add_run(p: argparse.ArgumentParser) -> None:
    """What every training command takes."""
    p.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of hart-edge data, or one like it")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    p.add_argument(
        "--recipe", type=Path, metavar="FILE.json", help="what to train and how (default: the shipped model)"
    )
    p.add_argument(
        "--set", action="append", default=[], metavar="GROUP.NAME=VALUE", help="change one value of the recipe"
    )
    p.add_argument(
        "--resume",
        nargs="?",
        const="newest",
        metavar="FILE",
        help="go on from the newest state in --out, or from this one; begins where there is none",
    )
    p.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="precision of the arithmetic (default: fp32)"
    )
    p.add_argument(
        "--compile", action="store_true", help="compile each step by torch.compile: faster, but for the first minutes"
    )
    p.add_argument(
        "--threads", type=thread_number, metavar="N", help="threads of each process (default: torch's choice)"
    )
    p.add_argument("--log-seconds", type=float, default=60, metavar="S", help="seconds between log lines (default: 60)")
    p.add_argument("--save-minutes", type=float, default=10, metavar="M", help="minutes between states (default: 10)")
    p.add_argument(
        "--look-steps", type=int, default=1000, metavar="N", help="steps between validations (default: 1000)"
    )
    p.add_argument("--keep", type=int, default=2, metavar="N", help="number of states to keep (default: 2)")
    p.add_argument("--json", action="store_true", help="print one JSON object at the end instead of text")


def run(a: argparse.Namespace) -> int:
    with needs_extra("training", "train"):
        for package in ("accelerate", "tensorboard", "torchmetrics"):
            importlib.import_module(package)
    from hart_edge.training.loop import Habits, train

    habits = Habits(a.log_seconds, a.save_minutes * 60, a.look_steps, a.keep)
    accelerator = start(a)
    made = {"tokenizer": tokenizer_task, "transformer": transformer_task, "evaluator": evaluator_task}
    task = made[a.model](a, accelerator)
    state = state_of(a, task)
    with StopSignal() as stop:
        step = train(task, a.out, accelerator, habits, state, stop)
    steps = task.recipe.optimisation.steps
    if accelerator.is_main_process:
        if a.json:
            print(json.dumps({"out": str(a.out), "steps": step, "of": steps}))
        else:
            print(f"{a.out}: {step} steps" + ("" if step == steps else f" of {steps}; go on with --resume"))
    accelerator.end_training()
    return 0


def start(a: argparse.Namespace) -> Accelerator:
    """Start accelerate's processes, set threads, and set up the log."""
    import torch

    from hart_edge.training.loop import make_accelerator

    if a.threads is not None:
        torch.set_num_threads(a.threads)
    accelerator = make_accelerator(a.precision, a.compile)
    level = logging.INFO if accelerator.is_main_process else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S", stream=sys.stderr)
    return accelerator


def tokenizer_task(a: argparse.Namespace, accelerator: Accelerator) -> Task:
    from hart_edge.data.pictures import read_pictures
    from hart_edge.reference.checkpoint import load_tokenizer
    from hart_edge.training.recipe import read_recipe
    from hart_edge.training.tokenizer.recipe import HART_EMOJI, TokenizerRecipe
    from hart_edge.training.tokenizer.task import TokenizerTask

    recipe = read_recipe(TokenizerRecipe, HART_EMOJI, a.recipe, a.set)
    with accelerator.main_process_first():  # it decodes the pictures, and the others read what it has kept
        train, validation = (read_pictures(a.data / part, recipe.side) for part in ("train", "validation"))
    log.info("%d pictures to train on, %d to validate on, %d px", len(train), len(validation), recipe.side)
    fingerprint = hashlib.sha256("\n".join((str(recipe.side), *train.names)).encode()).hexdigest()
    task = TokenizerTask(recipe, train.images, validation.images, fingerprint)
    if a.init is not None:
        load_tokenizer(a.init, task.model)
    return task


def transformer_task(a: argparse.Namespace, accelerator: Accelerator) -> Task:
    from hart_edge.training.recipe import read_recipe
    from hart_edge.training.transformer.recipe import HART_EMOJI, TransformerRecipe
    from hart_edge.training.transformer.setup import set_up

    recipe = read_recipe(TransformerRecipe, HART_EMOJI, a.recipe, a.set)
    return set_up(accelerator, recipe, a.data, a.tokenizer, init=a.init, text_model=a.text_model)


def evaluator_task(a: argparse.Namespace, accelerator: Accelerator) -> Task:
    from hart_edge.training.evaluator.recipe import HART_EMOJI, EvaluatorRecipe
    from hart_edge.training.evaluator.task import set_up
    from hart_edge.training.recipe import read_recipe

    return set_up(accelerator, read_recipe(EvaluatorRecipe, HART_EMOJI, a.recipe, a.set), a.data)


def state_of(a: argparse.Namespace, task: Task) -> State | None:
    """The state to go on from: that of --resume FILE, the newest in --out with --resume alone, or none."""
    from hart_edge.training.checkpoints import check_state, load_state, states

    found = states(a.out)
    if a.resume is None:
        if found:
            raise HartEdgeError(
                f"{a.out}: expected no run here, found {found[-1].name}; add --resume to go on with it, or "
                "choose another --out"
            )
        return None
    if a.resume == "newest" and not found:
        log.info("%s: nothing to resume, so the run begins", a.out)
        return None
    file = found[-1] if a.resume == "newest" else Path(a.resume)
    state = load_state(file)
    check_state(file, state, task.recipe, task.fingerprint)
    log.info("going on from %s", file)
    return state


class StopSignal:
    """True once the process has been asked to stop (Ctrl-C, SIGTERM, SIGHUP): the step ends, the state is written."""

    def __enter__(self) -> StopSignal:
        self.asked: set[int] = set()
        numbers = [signal.SIGINT, *(each for each in ENDING if signal.getsignal(each) is not signal.SIG_IGN)]  # nohup
        self.before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        return bool(self.asked)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if (
            number in self.asked
        ):  # the second time it ends at once (torchrun passes Ctrl-C on as SIGTERM, which counts apart)
            signal.signal(number, self.before[signal.Signals(number)])
            os.kill(os.getpid(), number)
        self.asked.add(number)
        log.info("stopping after this step; once more stops at once")
