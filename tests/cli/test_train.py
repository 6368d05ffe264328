"""`hart-edge train tokenizer`: what it writes and prints, resuming, refusals, and several processes."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hart_edge.training.checkpoints import State, load_state, states
from hart_edge.training.journal import Journal
from hart_edge.training.recipe import to_json
from hart_edge.training.tokenizer.recipe import open_tokenizer
from tests.cli.command_line import ROOT, Run
from tests.training.tokenizer.tiny_tokenizer import RECIPE, recipe, write_data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder, and the tiny recipe beside it."""
    (tmp_path / "recipe.json").write_text(json.dumps(to_json(RECIPE)), "utf-8")
    return write_data(tmp_path / "data")


def arguments(data: Path, out: str = "run", *more: object) -> list[object]:
    return ["train", "tokenizer", "--data", data, "--out", out, "--recipe", data.parent / "recipe.json", *more]


def newest(folder: Path) -> State:
    return load_state(states(folder)[-1])


@pytest.mark.long
def test_it_trains_and_resumes(run: Run, data: Path, tmp_path: Path) -> None:
    assert run(*arguments(data), "--resume")[:2] == (0, "run: 6 steps\n")  # finds nothing to resume
    assert open_tokenizer(tmp_path / "run" / "tokenizer").quantizer.patch_nums == (1, 2)

    status, out, err = run(*arguments(data))
    assert (status, out) == (1, "")
    assert err == (
        "error: run: expected no run here, found step-00000006.pt; add --resume to go on with it, or choose another "
        "--out\n"
    )
    status, out, err = run(*arguments(data), "--resume", "--set", "optimisation.steps=9")
    assert (status, out) == (1, "")
    assert "expected the recipe of the run, found other values (then, now):\n  optimisation.steps: 6, 9\n" in err

    (data / "train" / "09.png").rename(data / "train" / "9.png")
    metadata = data / "train" / "metadata.csv"
    metadata.write_text(metadata.read_text("utf-8").replace("09.png", "9.png"), "utf-8")
    status, out, err = run(*arguments(data), "--resume")
    assert (status, out) == (1, "") and "expected the examples of the run, found others" in err


@pytest.mark.long
def test_a_stopped_run_resumes_to_the_same_end(
    run: Run, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(*arguments(data, "whole"))[0] == 0
    before = signal.getsignal(signal.SIGTERM)
    line = Journal.note

    def ask(self: Journal, terms: dict[str, torch.Tensor]) -> None:
        line(self, terms)
        if len(self.sums) and self.sums["loss"][1] == 3:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "note", ask)
        assert run(*arguments(data))[:2] == (0, "run: 3 steps of 6; go on with --resume\n")
    assert signal.getsignal(signal.SIGTERM) is before
    status, out, _ = run(*arguments(data), "--resume", "run/state/step-00000003.pt", "--json")
    assert status == 0 and json.loads(out) == {"out": "run", "steps": 6, "of": 6}
    weights = [(tmp_path / name / "tokenizer" / "model.safetensors").read_bytes() for name in ("whole", "run")]
    assert weights[0] == weights[1]


@pytest.mark.long
def test_it_begins_with_the_weights_asked_for(run: Run, data: Path, tmp_path: Path) -> None:
    assert run(*arguments(data, "first"))[0] == 0
    still = ("--set", "optimisation.learning_rate=1e-12", "--set", "codebook.start=6", "--set", "optimisation.seed=9")
    assert run(*arguments(data, "second"), "--init", "first/tokenizer", *still)[0] == 0
    first, second = (open_tokenizer(tmp_path / name / "tokenizer").state_dict() for name in ("first", "second"))
    assert all(torch.allclose(first[name], second[name], atol=1e-6) for name in first)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--set", "side=64"), "recipe.side: expected 32, which is 16 times the last of patch_nums, found 64"),
        (("--threads", "0"), "argument --threads: expected an integer from 1 to 1024, found '0'"),
        (("--keep", "0"), "habits.keep: expected at least 1, found 0; choose another"),
        (("--init", "nowhere"), "nowhere: no weights; expected one of model.safetensors, pytorch_model.bin"),
        (("--resume", "nowhere.pt"), "nowhere.pt: expected the state of a run, found an unreadable file"),
    ],
)
def test_bad_input(run: Run, data: Path, more: tuple[str, ...], message: str) -> None:
    status, out, err = run(*arguments(data), *more)
    assert out == "" and message in err and err.count("error: ") == 1
    missing = "nowhere" in message
    assert (status, err.startswith("usage: hart-edge train ")) == ((1, False) if missing else (2, True))
    assert not Path("run").exists()


def test_a_missing_package_is_named(run: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    status, _, err = run(*arguments(data))
    assert status == 1
    assert err == "error: training needs accelerate, which is not installed; pip install 'hart-edge[train]'\n"


# Several processes.


@pytest.mark.long
def test_two_processes_have_the_gradients_of_one(run: Run, data: Path, tmp_path: Path) -> None:
    """Two steps, the second with codes. Adam's first moments are 0.09 g0 + 0.1 g1; its second check g^2 likewise."""
    two_steps = dataclasses.replace(
        recipe(steps=2, warmup=0, clip=1e9), codebook=dataclasses.replace(RECIPE.codebook, start=1)
    )
    (data.parent / "recipe.json").write_text(json.dumps(to_json(two_steps)), "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "hart_edge", *map(str, arguments(data, "two", "--threads", 1))]
    processes = [
        subprocess.Popen(
            command,
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    assert run(*arguments(data, "one"))[0] == 0  # meanwhile
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert [out for out, _ in results] == ["two: 2 steps\n", ""]  # only the first process prints
    assert re.search(r"10 pictures to train on, 4 to validate on", results[0][1])

    one, two = newest(tmp_path / "one"), newest(tmp_path / "two")
    assert torch.equal(one["task"]["use"], two["task"]["use"])
    for moment in ("exp_avg", "exp_avg_sq"):
        a, b = (
            torch.cat([each[moment].flatten() for each in state["optimizer"]["state"].values()]) for state in (one, two)
        )
        assert (a - b).norm() < 1e-4 * a.norm() and a.norm() > 0
    assert (one["optimizer"]["state"][0]["exp_avg"] - two["optimizer"]["state"][0]["exp_avg"]).abs().max() < 1e-5
