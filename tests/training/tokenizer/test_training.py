"""Training of a tiny tokenizer: it learns, resumes identically, stops on NaN, and uses both paths as asked."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image

from hart_edge.evaluation.reconstruction import measure
from hart_edge.training.checkpoints import load_state, states
from hart_edge.training.errors import TrainingError
from hart_edge.training.loop import Habits, begin, train
from hart_edge.training.tokenizer.codebook import CodebookCare
from hart_edge.training.tokenizer.critic import Adversarial
from hart_edge.training.tokenizer.recipe import Reconstructed, TokenizerRecipe, open_tokenizer
from tests.training.tokenizer.tiny_tokenizer import QUIET, RECIPE, SIDE, pictures, recipe, run, task

WITH_CRITIC = dataclasses.replace(RECIPE, adversarial=Adversarial(weight=0.5, start=1, ch=8, layers=1), early_side=16)


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal, tensors bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


class StopAfter:
    """Asks to stop at the end of the n-th step that it sees."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> bool:
        self.left -= 1
        return self.left == 0


# Resuming.


@pytest.mark.long
@pytest.mark.parametrize(
    ("r", "stops"), [(RECIPE, (2,)), (RECIPE, (4,)), (WITH_CRITIC, (1, 3))], ids=["plain-2", "plain-4", "critic-1-3"]
)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, r: TokenizerRecipe, stops: tuple[int, ...]) -> None:
    """Before, at and after the step at which codes come into use (2)."""
    assert run(task(r), tmp_path / "whole") == 6
    at = 0
    for stop in (*stops, None):
        state = load_state(states(tmp_path / "parts")[-1]) if at else None
        left = {} if stop is None else {"stop": StopAfter(stop - at)}
        at = run(task(r), tmp_path / "parts", state=state, **left)
        assert at == (stop or 6)
    whole, parts = (load_state(states(tmp_path / name)[-1]) for name in ("whole", "parts"))
    assert whole["step"] == 6 and same(whole, parts)
    published = [(tmp_path / name / "tokenizer" / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert published[0] == published[1]


def test_another_seed_gives_other_weights() -> None:
    models = [dict(task(recipe(seed=seed)).model.named_parameters()) for seed in (5, 5, 6)]
    random = [name for name in models[0] if "conv" in name and "weight" in name]
    assert all(torch.equal(models[0][name], models[1][name]) for name in random)
    assert not any(torch.equal(models[0][name], models[2][name]) for name in random)


# What is written.


@pytest.mark.long
def test_published_weights_are_the_average(tmp_path: Path) -> None:
    run(task(), tmp_path)
    state = load_state(states(tmp_path)[-1])
    published = dict(open_tokenizer(tmp_path / "tokenizer").named_parameters())
    assert all(torch.equal(published[name], tensor) for name, tensor in state["average"].items())
    assert not torch.equal(published["quantizer.codebook.weight"], state["model"]["quantizer.codebook.weight"])


@pytest.mark.long
def test_log_lines_sheets_and_states_come_at_their_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        run(task(), tmp_path, Habits(log_seconds=0, save_seconds=0, look_steps=3, keep=2))
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split("  ")[0] for line in lines if " of 6 " in line] == [f"step {n} of 6" for n in range(1, 7)]
    assert sum(line.startswith("step 3, validation: continuous_psnr ") for line in lines) == 1
    assert [file.name for file in states(tmp_path)] == ["step-00000005.pt", "step-00000006.pt"]
    assert [file.name for file in sorted((tmp_path / "sheets").iterdir())] == ["step-00000003.png", "step-00000006.png"]
    with Image.open(tmp_path / "sheets" / "step-00000006.png") as sheet:
        assert sheet.size == (4 * SIDE, 3 * SIDE)
        original = np.asarray(sheet)[:SIDE, SIDE : 2 * SIDE]
    assert np.array_equal(original, pictures(4, seed=1)[1])
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


# Failures.


@pytest.mark.long
def test_a_gradient_that_is_not_finite_stops_the_run_and_keeps_the_state(tmp_path: Path) -> None:
    t = task()
    poisoned = t.losses

    def losses(session: Any, rows: list[int], share: slice, step: int) -> dict[str, torch.Tensor]:
        terms = poisoned(session, rows, share, step)
        return terms if step < 4 else terms | {"loss": terms["loss"] * torch.nan}

    t.losses = losses
    with pytest.raises(TrainingError) as caught:
        run(t, tmp_path, Habits(log_seconds=1e9, save_seconds=0, look_steps=100, keep=2))
    message = str(caught.value)
    assert message.startswith("step 4: expected finite gradients, found norm nan (loss nan, codes ")
    assert message.endswith("begin anew with a lower optimisation.learning_rate")
    kept = load_state(states(tmp_path)[-1])
    assert kept["step"] == 4  # four steps, 0 to 3, were good
    assert all(torch.isfinite(tensor).all() for tensor in kept["model"].values())


def test_a_batch_that_processes_cannot_share_is_refused(tmp_path: Path) -> None:
    three = SimpleNamespace(num_processes=3)
    with pytest.raises(TrainingError, match=r"optimisation\.batch: expected a multiple of the 3 processes, found 4"):
        train(task(), tmp_path, three, QUIET)


# What it learns.


@pytest.mark.long
def test_it_learns(tmp_path: Path) -> None:
    t = task(recipe(steps=40, learning_rate=5e-3), 16)
    before = measure(t.model.autoencoder, t.model.quantizer, t.train)
    run(t, tmp_path)
    model = open_tokenizer(tmp_path / "tokenizer")
    after = measure(model.autoencoder, model.quantizer, t.train)
    assert after.continuous.psnr > before.continuous.psnr + 4
    assert after.discrete.psnr > before.discrete.psnr + 4


@pytest.mark.long
def test_dead_codes_are_replaced(tmp_path: Path) -> None:
    """Codes 4 to 15 begin where no latent will ever be; after three steps all of them are among the tokens."""
    t = task(dataclasses.replace(recipe(steps=3), codebook=CodebookCare(start=0, every=1, dead_below=0.9, memory=0.5)))
    t.place_codes = lambda session, step: None
    codebook = t.model.quantizer.codebook.weight
    torch.nn.init.constant_(codebook[4:], 1000.0)
    run(t, tmp_path)
    assert codebook.abs().max() < 100
    assert load_state(states(tmp_path)[-1])["average"]["quantizer.codebook.weight"].abs().max() < 100


@pytest.mark.parametrize(("alternating", "discrete"), [(0.0, 0), (1.0, 40), (0.5, 16)])
def test_paths_alternate_with_the_probability_asked_for(tmp_path: Path, alternating: float, discrete: int) -> None:
    r = dataclasses.replace(recipe(steps=10), alternating=alternating, codebook=CodebookCare(start=0))
    t = task(r)
    taken: list[bool] = []

    def note(images: torch.Tensor, paths: torch.Tensor, critic: None) -> Reconstructed:
        taken.extend(paths.tolist())
        loss = t.model.quantizer.codebook.weight.sum() * 0
        return Reconstructed({"loss": loss}, images, [], [])

    t.model.forward = note
    run(t, tmp_path)
    assert len(taken) == 40 and sum(taken) == discrete


def test_the_discrete_path_decodes_f_hat_and_the_continuous_the_latent() -> None:
    model = task().model
    images = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        made = model(images, torch.tensor([True, False]))
        latent = model.autoencoder.encode(images)
        _, f_hat, _ = model.quantizer.encode(latent, phi_at_last=True)
        expected = torch.stack([model.autoencoder.decode(f_hat)[0], model.autoencoder.decode(latent)[1]])
    assert torch.allclose(made.image, expected, atol=1e-5)
    assert (model.autoencoder.decode(latent)[0] - made.image[0]).abs().max() > 1e-3


def test_bf16_gives_nearly_the_same_gradients() -> None:
    gradients = []
    for precision in ("no", "bf16"):
        AcceleratorState._reset_state(True)  # accelerate keeps the first precision of a process
        accelerator = Accelerator(cpu=True, mixed_precision=precision)
        t = task()
        _, session = begin(t, accelerator, None)
        accelerator.backward(t.losses(session, [0, 1, 2, 3], slice(0, 4), 1)["loss"])
        gradients.append(t.model.autoencoder.decoder.conv_out.weight.grad.clone())
    AcceleratorState._reset_state(True)
    difference = (gradients[0] - gradients[1]).norm() / gradients[0].norm()
    assert 1e-5 < difference < 0.05
