"""The loop that every model is trained by: batch, loss, gradient, step, average; now and then log, validate, save.

In: a Task, and the state to continue from. Out: states and published weights under the run's folder. Processes are
accelerate's: started by `accelerate launch` or torchrun there are several, otherwise one, and the code is the same.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from hart_edge.training.average import Average
from hart_edge.training.checkpoints import State, save_state
from hart_edge.training.errors import TrainingError
from hart_edge.training.journal import Journal
from hart_edge.training.optimizer import make_optimizer
from hart_edge.training.order import rows_of, share_of
from hart_edge.training.recipe import Optimisation, check, to_json
from hart_edge.training.schedule import learning_rate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Habits:
    """What does not change the result of a run, and so may change from one session of it to the next."""

    log_seconds: float = 60.0
    save_seconds: float = 600.0
    look_steps: int = 1000  # between figures on validation, with a sample sheet
    keep: int = 2  # states on disk

    def __post_init__(self) -> None:
        check(self, "log_seconds save_seconds", "0 or above", lambda v: v >= 0, remedy="choose another")
        check(self, "look_steps keep", "at least 1", lambda v: v >= 1, remedy="choose another")


@dataclass(frozen=True)
class TrainingSession:
    """What a task may need besides its model: accelerate's processes, the optimiser and the average."""

    accelerator: Accelerator
    model: nn.Module  # as accelerate wrapped it; calling it is what synchronises gradients
    optimizer: AcceleratedOptimizer
    average: Average

    def moments(self, parameter: Tensor) -> list[Tensor]:
        """The optimiser's running tensors of a parameter; none before its first step."""
        return [each for each in self.optimizer.state.get(parameter, {}).values() if each.shape == parameter.shape]


class Task(Protocol):
    """What is trained. `model` is averaged and published; steps are counted from 0."""

    name: str
    recipe: Any  # a dataclass with a field `optimisation`
    examples: int
    fingerprint: str  # of the data; a run continues on the same

    @property
    def model(self) -> nn.Module: ...

    @property
    def shares(self) -> NDArray[np.float64] | None:
        """How often each example is drawn (rows_of); None: all alike."""

    def begin(self, session: TrainingSession) -> None:
        """Called once, before the first step and before load()."""

    def losses(self, session: TrainingSession, rows: list[int], share: slice, step: int) -> dict[str, Tensor]:
        """`loss`, to be minimised, and further terms for the log. rows: of the whole batch; share: this process's."""

    def after(self, session: TrainingSession, step: int) -> None:
        """Called after the weights have been updated, in every process."""

    def state(self) -> State: ...

    def load(self, state: State) -> None: ...

    def figures(self) -> dict[str, float]:
        """Figures on validation, with the weights that the model has now."""

    def sheet(self) -> Image.Image: ...

    def publish(self, folder: Path, step: int) -> None: ...


def make_accelerator(precision: str, compiled: bool = False) -> Accelerator:
    """accelerate's processes, on the GPUs or else the CPU. precision: fp32 or bf16; compiled: steps by torch.compile,
    which takes a minute at the first one and a C++ compiler on a CPU.
    """
    handlers = [
        DistributedDataParallelKwargs(find_unused_parameters=True),  # the codebook, until it is first used
        InitProcessGroupKwargs(timeout=timedelta(days=1)),  # a run may be halted (SIGSTOP) and waits then
    ]
    return Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision={"fp32": "no"}.get(precision, precision),
        dynamo_backend="inductor" if compiled else "no",
        kwargs_handlers=handlers,
    )


def train(
    task: Task,
    folder: Path,
    accelerator: Accelerator,
    habits: Habits,
    state: State | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train to the end of the recipe, or until stop() is true; returns the number of steps done.

    state: of load_state(), already known to belong to this task (check_state). Raises TrainingError when a gradient is
    not finite or a state cannot be written; the states written before stay.
    """
    o: Optimisation = task.recipe.optimisation
    if o.batch % accelerator.num_processes:
        raise TrainingError(
            f"optimisation.batch: expected a multiple of the {accelerator.num_processes} processes, found {o.batch}; "
            "change the recipe or the number of processes"
        )
    step, session = begin(task, accelerator, state)
    share = share_of(o.batch, accelerator.process_index, accelerator.num_processes)
    with Journal(folder, step, o.steps, o.batch, accelerator.is_main_process) as journal:
        logged = saved = time.monotonic()
        while step < o.steps:
            rate = learning_rate(o, step)
            for group in session.optimizer.param_groups:
                group["lr"] = rate
            rows = rows_of(task.examples, o.batch, step, o.seed, task.shares).tolist()
            terms, norm = one_step(task, session, rows, share, step)
            step += 1
            journal.note(terms | {"gradient_norm": norm})
            stopping = agreed(accelerator, stop())
            now = time.monotonic()
            if accelerator.is_main_process:
                ends = step == o.steps or stopping
                if now - logged >= habits.log_seconds or ends:
                    logged = now
                    journal.line(step, rate)
                if now - saved >= habits.save_seconds or ends:
                    save(task, session, folder, step, habits.keep)
                    saved = now
                if step % habits.look_steps == 0 or step == o.steps:
                    look(task, session, journal, step)
            if stopping:
                break
    accelerator.wait_for_everyone()
    return step


def begin(task: Task, accelerator: Accelerator, state: State | None) -> tuple[int, TrainingSession]:
    """The step to go on from, and the session."""
    o: Optimisation = task.recipe.optimisation
    task.model.to(accelerator.device).train()
    if state is not None:
        task.model.load_state_dict(state["model"])
    model, optimizer = accelerator.prepare(task.model, make_optimizer(task.model, o))
    session = TrainingSession(accelerator, model, optimizer, Average(task.model, o.average))
    task.begin(session)
    if state is None:
        return 0, session
    optimizer.load_state_dict(state["optimizer"])
    session.average.load(state["average"])
    task.load(state["task"])
    return state["step"], session


def one_step(
    task: Task, session: TrainingSession, rows: list[int], share: slice, step: int
) -> tuple[dict[str, Tensor], Tensor]:
    """One update of the weights: (terms of the loss, norm of the gradient before it was clipped)."""
    o: Optimisation = task.recipe.optimisation
    terms = task.losses(session, rows, share, step)
    session.accelerator.backward(terms["loss"])
    norm = session.accelerator.clip_grad_norm_(session.model.parameters(), o.clip)
    if not torch.isfinite(norm):  # the same in every process, since gradients have been averaged
        shown = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in terms.items())
        raise TrainingError(
            f"step {step}: expected finite gradients, found norm {float(norm)} ({shown}); the state before it is kept. "
            "Resume with --resume; if it happens again, begin anew with a lower optimisation.learning_rate"
        )
    session.optimizer.step()
    session.optimizer.zero_grad()
    session.average.update(step)
    task.after(session, step)
    return {name: value.detach() for name, value in terms.items()}, norm


def agreed(accelerator: Accelerator, stop: bool) -> bool:
    """Whether any process has been asked to stop; all then stop at the same step."""
    if accelerator.num_processes == 1:
        return stop
    flag = torch.tensor([float(stop)], device=accelerator.device)
    return bool(accelerator.reduce(flag, "sum").item() > 0)


def look(task: Task, session: TrainingSession, journal: Journal, step: int) -> None:
    with session.average.applied():
        journal.figures(step, task.figures())
        journal.sheet(step, task.sheet())


def save(task: Task, session: TrainingSession, folder: Path, step: int, keep: int) -> None:
    """The state of the run, and the averaged weights in the published layout."""
    state = {
        "recipe": to_json(task.recipe),
        "fingerprint": task.fingerprint,
        "model": task.model.state_dict(),
        "optimizer": session.optimizer.state_dict(),
        "average": session.average.state,
        "task": task.state(),
    }
    file = save_state(folder, step, state, keep)
    with session.average.applied():
        task.publish(folder, step)
    log.info("step %d: wrote %s", step, file)
