"""Adam for all parameters, and Adam with Muon for the matrices of layers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from hart_edge.training.checkpoints import load_state, states
from hart_edge.training.errors import TrainingError
from hart_edge.training.loop import begin, train
from hart_edge.training.optimizer import MuonAndAdam, layer_matrices, make_optimizer
from hart_edge.training.recipe import Optimisation
from tests.training.tokenizer.tiny_tokenizer import QUIET
from tests.training.transformer import tiny_transformer
from tests.training.transformer.tiny_transformer import changed


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.layers = nn.ModuleList([nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6)), nn.Conv1d(6, 4, 1)])
        self.head = nn.Linear(4, 5)


def test_parameters_that_muon_updates(tmp_path: Path) -> None:
    small = Small()
    assert layer_matrices(small) == [small.layers[0][0].weight]
    model = tiny_transformer.task(tmp_path).model
    chosen = set(layer_matrices(model))
    names = {name for name, parameter in model.named_parameters() if parameter in chosen}
    assert {name.split(".")[0] for name in names} == {"text", "transformer", "residual"}
    assert {"transformer.blocks.1.attn.qkv.weight", "residual.blocks.0.modulation.weight"} <= names
    assert all(".blocks." in name or ".layers." in name for name in names)
    assert not any("norm" in name or name.endswith("bias") for name in names)


def test_each_parameter_is_updated_by_its_own_optimizer() -> None:
    """A step of Adam has the size of the rate; one of Muon is nearly orthogonal, of 0.2 times the rate per element."""
    torch.manual_seed(0)
    small = Small()
    optimizer = make_optimizer(small, Optimisation(steps=1, warmup=0, learning_rate=0.01, optimizer="muon"))
    before = {name: parameter.detach().clone() for name, parameter in small.named_parameters()}
    for parameter in small.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    moved = {name: parameter.detach() - before[name] for name, parameter in small.named_parameters()}
    for name in ("embed.weight", "head.weight", "layers.1.weight", "layers.0.0.bias"):
        torch.testing.assert_close(moved[name].abs(), torch.full_like(moved[name], 0.01), atol=1e-5, rtol=0)
    singular = torch.linalg.svdvals(moved["layers.0.0.weight"])  # 0.2 * sqrt(6) * rate, within Newton-Schulz's reach
    assert singular.min() > 0.6 * 0.2 * 6**0.5 * 0.01 and singular.max() < 1.3 * 0.2 * 6**0.5 * 0.01
    optimizer.zero_grad()
    assert all(parameter.grad is None for parameter in small.parameters())


def test_the_rate_is_set_for_both(tmp_path: Path) -> None:
    task = tiny_transformer.task(tmp_path, changed(optimizer="muon"))
    _, session = begin(task, Accelerator(cpu=True), None)
    assert isinstance(session.optimizer.optimizer, MuonAndAdam) and len(session.optimizer.param_groups) == 2
    counted = sum(len(group["params"]) for group in session.optimizer.param_groups)
    assert counted == len(list(task.model.parameters()))


@pytest.mark.long
def test_resumed_is_uninterrupted(tmp_path: Path) -> None:
    recipe = changed(steps=4, optimizer="muon")
    whole, first, second = (tiny_transformer.task(tmp_path, recipe) for _ in range(3))
    train(whole, tmp_path / "whole", Accelerator(cpu=True), QUIET)
    steps = iter([False, True])
    assert train(first, tmp_path / "parts", Accelerator(cpu=True), QUIET, stop=lambda: next(steps)) == 2
    state = load_state(states(tmp_path / "parts")[-1])
    assert train(second, tmp_path / "parts", Accelerator(cpu=True), QUIET, state=state) == 4
    one, other = (load_state(states(tmp_path / name)[-1]) for name in ("whole", "parts"))
    assert all(torch.equal(one["model"][name], other["model"][name]) for name in one["model"])
    plain = tiny_transformer.task(tmp_path, changed(steps=4))
    train(plain, tmp_path / "adam", Accelerator(cpu=True), QUIET)
    name = "transformer.blocks.0.attn.qkv.weight"
    assert not torch.equal(load_state(states(tmp_path / "adam")[-1])["model"][name], one["model"][name])


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"optimisation.optimizer: expected adam or muon, found 'sgd'; change"):
        Optimisation(steps=300, optimizer="sgd")
