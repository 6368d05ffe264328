"""`hart-edge train transformer` from data to a checkpoint, a second run at a higher resolution, and its refusals."""

from __future__ import annotations

import functools
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.training.checkpoints import load_state, states
from hart_edge.training.recipe import to_json
from tests.cli.command_line import Run, processes
from tests.training.tokenizer.tiny_tokenizer import write_data
from tests.training.transformer import tiny_transformer
from tests.training.transformer.tiny_transformer import changed


@pytest.fixture
def command(tmp_path: Path, run: Run) -> Any:
    """call(*arguments, **recipe): the command on invented data with a tiny recipe, into OUT/run"""
    data = write_data(tmp_path / "data")
    tokenizer = tiny_transformer.publish(tmp_path, tiny_transformer.tokenizer())
    common = ("--data", data, "--threads", 1, "--log-seconds", 0)

    def call(
        *more: object, out: str = "run", folder: Path = tokenizer, start: Any = run, **values: Any
    ) -> tuple[int, str, str]:
        file = tmp_path / f"{out}.json"
        file.write_text(json.dumps(to_json(changed(**{"steps": 2, "warmup": 1, **values}))), "utf-8")
        options = ("--tokenizer", folder, "--out", tmp_path / out, "--recipe", file)
        return start("train", "transformer", *common, *options, *more)

    return call


@pytest.mark.long
def test_from_data_to_a_higher_resolution(command: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    status, said, _ = command()
    assert (status, said) == (0, f"{tmp_path}/run: 2 steps\n")
    assert load_checkpoint(tmp_path / "run").model.patch_nums == (1, 2)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        *("llm", "sheets", "state", "tensorboard", "text_model", "tokenizer"),
    ]
    shutil.rmtree(tmp_path / "data" / "train" / ".hart-edge")  # may be deleted: a resumed run makes it again
    with caplog.at_level(logging.INFO):
        assert command("--resume")[0] == 0
    assert f"going on from {tmp_path}/run/state/step-00000002.pt" in caplog.text
    status, said, _ = command("--init", tmp_path / "run", out="larger", patch_nums=(1, 2, 3), side=48)
    assert (status, said) == (0, f"{tmp_path}/larger: 2 steps\n")
    larger = load_checkpoint(tmp_path / "larger").model
    assert larger.patch_nums == (1, 2, 3) and larger.image_size == 48
    text = [(tmp_path / name / "text_model" / "tokenizer.json").read_bytes() for name in ("run", "larger")]
    assert text[0] == text[1]


@pytest.mark.long
def test_what_is_refused(command: Any, tmp_path: Path) -> None:
    status, _, error = command("--set", "transformer.patch_nums=[1, 2, 3]")
    assert status == 2 and "side: expected 48, which is 16 times the last of transformer.patch_nums, found 32" in error
    status, _, error = command("--text-model", tmp_path / "nowhere")
    assert status == 1 and f"{tmp_path}/nowhere/tokenizer.json: missing" in error
    status, _, error = command(train=False)
    assert status == 1 and "text.train: expected true for a text model that is made anew, found false" in error
    (tmp_path / "data" / "train" / "metadata.csv").unlink()
    status, _, error = command()
    assert status == 1 and "data/train: expected metadata.csv" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_run_belongs_to_its_tokenizer_and_recipe(command: Any, tmp_path: Path) -> None:
    assert command()[0] == 0
    status, _, error = command()
    assert status == 1 and "run: expected no run here, found step-00000002.pt; add --resume" in error
    status, _, error = command("--resume", learning_rate=1e-4)
    assert status == 1 and "optimisation.learning_rate: 0.005, 0.0001" in error
    other = tiny_transformer.publish(tmp_path / "other", tiny_transformer.tokenizer(seed=1))
    status, _, error = command("--resume", folder=other)
    assert status == 1 and "expected the examples of the run, found others; restore the data" in error
    wider = tiny_transformer.publish(tmp_path / "wider", tiny_transformer.tokenizer(vocab_size=20, z_channels=6))
    status, _, error = command("--init", tmp_path / "run", out="new", folder=wider)
    assert status == 1 and "transformer.head.weight: expected shape (20, 16), found (16, 16)" in error
    assert "use the tokenizer of the checkpoint, or begin without --init" in error


@pytest.mark.slow  # the loop of several processes is tested with the image tokenizer (tests/cli/test_train.py)
def test_two_processes_have_the_gradients_of_one(command: Any, tmp_path: Path) -> None:
    """They share the encoding too. Adam's first moments are 0.09 g0 + 0.1 g1; its second check g^2 likewise."""
    recipe = {"warmup": 0, "clip": 1e9, "cond_drop_rate": 0.5}
    started = command(out="two", start=functools.partial(processes, 2, cwd=tmp_path), **recipe)
    results = [each.communicate(timeout=120) for each in started]
    assert [each.returncode for each in started] == [0, 0], results
    assert [said for said, _ in results] == [f"{tmp_path}/two: 2 steps\n", ""]
    shared = [path.read_bytes() for path in sorted((tmp_path / "data").rglob("codes-*"))]
    for path in (tmp_path / "data").rglob("codes-*"):
        path.unlink()
    assert command(out="one", **recipe)[0] == 0
    alone = [path.read_bytes() for path in sorted((tmp_path / "data").rglob("codes-*"))]
    assert len(alone) == 2 and alone == shared
    one, two = (load_state(states(tmp_path / name)[-1])["optimizer"]["state"] for name in ("one", "two"))
    for moment in ("exp_avg", "exp_avg_sq"):
        a, b = (torch.cat([each[moment].flatten() for each in state.values()]) for state in (one, two))
        assert (a - b).norm() < 1e-4 * a.norm() and a.norm() > 0
