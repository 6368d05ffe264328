"""The first weights: random ones, and those of a checkpoint at other scales."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.config import TransformerConfig
from hart_edge.reference.residual import ResidualMLP
from hart_edge.reference.transformer import Transformer
from hart_edge.training.errors import TrainingError
from hart_edge.training.transformer.start import carry_over, initialise, resized_levels
from tests.reference.tiny_hart import tiny_checkpoint
from tests.training.transformer import tiny_transformer

SAME: dict[str, Any] = {"context_token": 6, "context_dim": 20, "diff_width": 24, "diff_depth": 2}


def make(patch_nums: tuple[int, ...], vocab_size: int = 40, z: int = 8, **config: Any) -> nn.ModuleDict:
    values = {"embed_dim": 32, "depth": 2, "num_heads": 2, "num_sampling_steps": 3, **SAME, **config}
    config = TransformerConfig(patch_nums, **values)
    return nn.ModuleDict({"transformer": Transformer(config, vocab_size, z), "residual": ResidualMLP(config, z)})


def test_the_first_losses_are_those_of_a_uniform_guess(tmp_path: Path) -> None:
    """All codes are about equally likely and the predicted residual is zero, so both losses are known beforehand."""
    task = tiny_transformer.task(tmp_path)
    with torch.no_grad():
        terms = task.model(task.batch(np.arange(10), slice(0, 10), 0))
    assert float(terms["cross_entropy"]) == pytest.approx(math.log(16), abs=0.02)
    assert 0.6 < float(terms["residual"]) < 2.5  # noise of unit size, and a variance not yet fitted
    again = tiny_transformer.task(tmp_path)
    for (name, one), other in zip(task.model.named_parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_spreads() -> None:
    torch.manual_seed(0)
    both = make((1, 2), embed_dim=64, depth=8)
    initialise(both["transformer"], both["residual"])
    both.requires_grad_(False)
    block = both["transformer"].blocks[0]
    assert float(block.attn.qkv.weight.std()) == pytest.approx(1 / math.sqrt(3 * 64), rel=0.05)
    assert float(block.mlp.gate.weight.std()) == pytest.approx(1 / math.sqrt(3 * 64), rel=0.05)
    assert float(block.mlp.down.weight.std()) == pytest.approx(1 / math.sqrt(3 * 256) / 4, rel=0.05)  # sqrt(2 * 8)
    assert float(both["transformer"].head.weight.std()) == pytest.approx(0.02 / math.sqrt(3 * 64), rel=0.05)
    x, y = torch.randn(5, 24), torch.randn(5, 24)
    assert torch.equal(both["residual"].blocks[0](x, y), x)


@pytest.mark.parametrize("flavour", ["shared", "adaln"])
def test_gates_begin_open(flavour: str) -> None:
    both = make((1, 2), disable_aln=flavour == "shared", shared_aln=flavour == "shared")
    initialise(both["transformer"], both["residual"])
    gates = both["transformer"].blocks[1].modulate_by(torch.zeros(1, 32))[0]
    assert gates[:2].tolist() == [[1.0] * 32] * 2 and gates[2:].abs().max() == 0


@pytest.mark.parametrize("levels", ["embedded", "table"])
def test_a_checkpoint_goes_on_at_other_scales(tmp_path: Path, caplog: pytest.LogCaptureFixture, levels: str) -> None:
    embedded = levels == "embedded"
    tiny_checkpoint(tmp_path, 3, llm={"use_timestep_embed": embedded})
    both = make((1, 2, 3, 4, 6), use_timestep_embed=embedded, cond_drop_rate=0.2)
    with caplog.at_level(logging.INFO):
        carry_over(tmp_path, both["transformer"], both["residual"])
    source = load_checkpoint(tmp_path).model
    for name, tensor in both.state_dict().items():
        if name != "transformer.level_embed.weight":
            assert torch.equal(tensor, source.state_dict()[name]), name
    assert "tensors carried over, from scales 1 2 3 to 1 2 3 4 6" in caplog.text
    if not embedded:
        found, old = both["transformer"].level_embed.weight, source.transformer.level_embed.weight
        expected = torch.stack([old[0], (old[0] + old[1]) / 2, old[1], (old[1] + old[2]) / 2, old[2]])
        torch.testing.assert_close(found.detach(), expected, atol=1e-6, rtol=0)
        assert "transformer.level_embed.weight resized from 3 scales to 5" in caplog.text


def test_levels_of_as_many_scales_stay() -> None:
    table = torch.randn(4, 7)
    assert torch.equal(resized_levels(table, 4), table)


def test_weights_that_cannot_be_carried_over(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, 3)
    both = make((1, 2, 3), num_heads=4, attn_l2_norm=False)
    with pytest.raises(TrainingError) as caught:
        carry_over(tmp_path, both["transformer"], both["residual"])
    assert str(caught.value).splitlines() == [
        f"{tmp_path}/llm/config.json: expected the recipe's transformer, found other values (checkpoint, recipe):",
        "  attn_l2_norm: True, False",
        "  num_heads: 2, 4",
        "set the recipe's transformer to the checkpoint's, or begin without --init",
    ]


def test_a_checkpoint_of_another_tokenizer(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, 3)
    both = make((1, 2, 3), vocab_size=50, z=6)
    with pytest.raises(TrainingError) as caught:
        carry_over(tmp_path, both["transformer"], both["residual"])
    message = str(caught.value)
    assert message.startswith(
        f"{tmp_path}/llm/ema_model.safetensors: expected tensors of this tokenizer's size, found 6"
    )
    assert "transformer.head.weight: expected shape (50, 32), found (40, 32)" in message
    assert "transformer.word_embed.weight: expected shape (32, 6), found (32, 8)" in message
    assert message.endswith("use the tokenizer of the checkpoint, or begin without --init")
