"""The evaluator's training: its loss by hand, shifted pictures, resuming, several processes, refusals."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch.nn.functional import normalize

from hart_edge.evaluation.evaluator import EvaluatorConfig, open_evaluator
from hart_edge.training.checkpoints import load_state, states
from hart_edge.training.errors import TrainingError
from hart_edge.training.evaluator.recipe import EvaluatorRecipe, contrastive, moved
from hart_edge.training.evaluator.task import EvaluatorTask
from hart_edge.training.loop import train
from hart_edge.training.recipe import from_json, to_json
from tests.cli.command_line import Run, processes
from tests.training.evaluator import tiny_evaluator
from tests.training.evaluator.tiny_evaluator import RECIPE, SIDE, changed, write_data
from tests.training.tokenizer.tiny_tokenizer import QUIET


def run_task(task: EvaluatorTask, folder: Path, **more: Any) -> int:
    return train(task, folder, Accelerator(cpu=True), QUIET, **more)


# The loss.


def test_the_loss_is_the_symmetric_cross_entropy() -> None:
    a, b = (normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(seed)), dim=-1) for seed in (0, 1))
    ids = torch.arange(3)[:, None]
    found = contrastive(a, b, torch.tensor(7.0), ids)
    total = 0.0
    for i in range(3):
        rows = [math.exp(7 * float(a[i] @ b[j])) for j in range(3)]
        columns = [math.exp(7 * float(a[j] @ b[i])) for j in range(3)]
        total -= (math.log(rows[i] / sum(rows)) + math.log(columns[i] / sum(columns))) / 6
    assert float(found["loss"]) == pytest.approx(total, rel=1e-5)


def test_the_same_caption_counts_as_right() -> None:
    """Two pictures have the same caption, so each is contrasted only with the third."""
    a = normalize(torch.eye(3) + 0.1, dim=-1)
    b = a[[0, 0, 2]]
    found = contrastive(a, b, torch.tensor(5.0), torch.tensor([[1], [1], [2]]))
    kept = contrastive(a, b, torch.tensor(5.0), torch.tensor([[1], [3], [2]]))
    assert found["loss"] < kept["loss"]
    logits = 5 * a @ b.T
    by_hand = -torch.log_softmax(logits[1, [1, 2]], 0)[0]
    first_row = -torch.log_softmax(logits[0, [0, 2]], 0)[0]
    third_row = -torch.log_softmax(logits[2], 0)[2]
    columns = [-torch.log_softmax(logits[rows, i], 0)[at] for i, rows, at in ((0, [0, 2], 0), (1, [1, 2], 0))]
    columns.append(-torch.log_softmax(logits[:, 2], 0)[2])
    expected = (sum([first_row, by_hand, third_row]) + sum(columns)) / 6
    assert float(found["loss"]) == pytest.approx(float(expected), rel=1e-5)


def test_pictures_are_shifted_and_their_borders_repeated() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 6, 3), np.uint8)
    found = moved(images, np.array([[2, -1], [0, 0]]))
    assert (found[1] == images[1]).all()
    assert (found[0][2:, :5] == images[0][:4, 1:]).all()
    assert (found[0][:2, :5] == images[0][0, 1:]).all() and (found[0][2:, 5] == images[0][:4, 5]).all()


# A run.


@pytest.mark.long
def test_it_learns_colours() -> None:
    task = tiny_evaluator.task(changed(steps=80, batch=4, warmup=5), count=16)
    before = task.figures()
    optimizer = torch.optim.Adam(task.model.parameters(), 5e-3)
    for step in range(80):
        rows = np.random.default_rng(step).permutation(4) + 4 * (step % 4)  # one picture of each colour
        images, ids = task.batch(rows, step)
        contrastive(*task.model(images, ids), ids)["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    after = task.figures()
    assert after["loss"] < 0.5 * before["loss"]
    assert after["retrieval_1"] == 1.0  # eight pictures, four captions: a caption of the same words is no better one


@pytest.mark.long
def test_a_stopped_run_resumes_to_the_same_result(tmp_path: Path) -> None:
    whole = tiny_evaluator.task()
    assert run_task(whole, tmp_path / "whole") == 6
    asked = iter([False, False, True])
    assert run_task(tiny_evaluator.task(), tmp_path / "part", stop=lambda: next(asked)) == 3
    state = load_state(states(tmp_path / "part")[-1])
    resumed = tiny_evaluator.task()
    assert run_task(resumed, tmp_path / "part", state=state) == 6
    a, b = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    judges = [open_evaluator(tmp_path / name / "evaluator") for name in ("whole", "part")]
    assert judges[0].sha256 == judges[1].sha256


def test_the_fingerprint_is_of_pictures_and_captions() -> None:
    first, more = tiny_evaluator.task(), tiny_evaluator.task(count=11)
    assert first.fingerprint == tiny_evaluator.task().fingerprint != more.fingerprint


@pytest.fixture
def command(tmp_path: Path, run: Run) -> Any:
    data = write_data(tmp_path / "data", {"train": 10, "validation": 4}, "picture {}")

    def call(*more: object, out: str = "run", start: Any = run, **optimisation: Any) -> Any:
        recipe = tmp_path / f"{out}.json"
        recipe.write_text(json.dumps(to_json(changed(**{"steps": 2, "warmup": 1, **optimisation}))), "utf-8")
        common = ("--data", data, "--out", tmp_path / out, "--recipe", recipe, "--threads", 1)
        return start("train", "evaluator", *common, *more)

    return call


def test_the_command_leaves_an_evaluator(command: Any, tmp_path: Path) -> None:
    assert command()[:2] == (0, f"{tmp_path}/run: 2 steps\n")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["evaluator", "sheets", "state", "tensorboard"]
    judge = open_evaluator(tmp_path / "run" / "evaluator")
    assert judge.model.config == RECIPE.evaluator
    status, said, error = command()
    assert (status, said) == (1, "") and "run: expected no run here, found step-00000002.pt" in error


@pytest.mark.slow  # the loop of several processes is tested with the image tokenizer (tests/cli/test_train.py)
def test_two_processes_have_the_gradients_of_one(command: Any, tmp_path: Path) -> None:
    """Every picture is contrasted with those of both processes. Adam's first moments are 0.09 g0 + 0.1 g1."""
    recipe = {"warmup": 0, "clip": 1e9}
    started = command(out="two", start=functools.partial(processes, 2, cwd=tmp_path), **recipe)
    results = [each.communicate(timeout=120) for each in started]
    assert [each.returncode for each in started] == [0, 0], results
    assert command(out="one", **recipe)[0] == 0
    one, two = (load_state(states(tmp_path / name)[-1])["optimizer"]["state"] for name in ("one", "two"))
    for moment in ("exp_avg", "exp_avg_sq"):
        a, b = (torch.cat([each[moment].flatten() for each in state.values()]) for state in (one, two))
        assert (a - b).norm() < 1e-4 * a.norm() and a.norm() > 0


# What is refused.


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mirror": 2.0}, "recipe.mirror: expected 0 to 1, found 2.0"),
        ({"shift": SIDE}, f"recipe.shift: expected 0 to below the side, found {SIDE}"),
        ({"optimisation": dataclasses.replace(RECIPE.optimisation, batch=1)}, "batch: expected at least 2"),
    ],
)
def test_impossible_recipes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        dataclasses.replace(RECIPE, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"side": 30}, "side: expected a multiple of 8 from 8 up, found 30"),
        ({"widths": (8,)}, r"widths: expected two or more multiples of 8, found \(8,\)"),
        ({"widths": (8, 12)}, "widths: expected two or more multiples of 8"),
        ({"tokens": 0}, "tokens: expected at least 1, found 0"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(RECIPE.evaluator, **change)
    raw = {**to_json(RECIPE), "evaluator": {**to_json(RECIPE.evaluator), **change}}
    with pytest.raises(TrainingError, match=f"recipe.evaluator.{message}.*; change the recipe"):
        from_json(EvaluatorRecipe, raw)
    assert EvaluatorConfig().side == 128
