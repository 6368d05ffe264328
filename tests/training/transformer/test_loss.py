"""The losses of one step on a tiny generator: compared with a plain computation, and where gradients go."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hart_edge.training.errors import TrainingError
from hart_edge.training.transformer.recipe import Batch, Generator, token_weights
from tests.training.transformer import tiny_transformer
from tests.training.transformer.tiny_transformer import CONFIG, RECIPE, changed, filled


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Generator, Batch]:
    """A generator whose weights all have an effect, and a batch of four, one with its condition dropped."""
    task = tiny_transformer.task(tmp_path_factory.mktemp("task"))
    batch = task.batch(np.arange(4), slice(0, 4), 0)
    return filled(task.model), batch._replace(dropped=torch.tensor([False, True, False, False]))


def test_the_loss_by_a_plain_computation(parts: tuple[Generator, Batch]) -> None:
    """Logits by one pass of the reference per picture, cross-entropy by hand, the residual's loss token by token."""
    model, batch = parts
    with torch.no_grad():
        found = model(batch)
    cross_entropy, residual = 0.0, 0.0
    for i in range(4):
        with torch.no_grad():
            logits, losses = model.predict(Batch(*(tensor[i : i + 1] for tensor in batch)))
        for n, code in enumerate(batch.indices[i].tolist()):
            row = logits[0, n].double().tolist()
            likelihood = math.exp(row[code]) / sum(math.exp(value) for value in row)
            part = 1 if n == 0 else 4 / 2  # the one code of scale 0; two of four stand for the last scale
            cross_entropy -= part / 5 * math.log(likelihood) / 4
        residual += float(losses.double().mean()) / 4
    assert float(found["cross_entropy"]) == pytest.approx(cross_entropy, rel=1e-5)
    assert float(found["residual"]) == pytest.approx(residual, rel=1e-5)
    assert float(found["loss"]) == pytest.approx(cross_entropy + residual, rel=1e-5)
    assert cross_entropy > 1 and residual > 0.5


def test_the_condition_of_the_residual(parts: tuple[Generator, Batch]) -> None:
    """It is decoder_norm(hidden + word_embed(code)) of the tokens whose residual is predicted."""
    model, batch = parts
    seen = []
    handle = model.residual.cond_embed.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    hidden = []
    other = model.transformer.head_norm.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0]))
    with torch.no_grad():
        model.predict(batch)
        expected = model.transformer.decoder_norm(hidden[0][:, 1:] + model.transformer.word_embed(batch.codes))
    handle.remove()
    other.remove()
    assert hidden[0].shape == (4, 3, 16)
    torch.testing.assert_close(seen[0], expected.flatten(0, 1), atol=1e-6, rtol=0)


def test_gradients_reach_every_parameter(parts: tuple[Generator, Batch]) -> None:
    model, batch = parts
    model.zero_grad()
    model(batch)["loss"].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize(
    "flavour",
    [{"shared_aln": False}, {"shared_aln": False, "disable_aln": False}, {"use_timestep_embed": False}],
    ids=["plain", "adaln", "table"],
)
def test_gradients_in_other_flavours(tmp_path: Path, flavour: dict[str, bool]) -> None:
    task = tiny_transformer.task(tmp_path, changed(**flavour))
    filled(task.model)(task.batch(np.arange(4), slice(0, 4), 0))["loss"].backward()
    assert [n for n, p in task.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_a_frozen_text_model_has_no_gradient(parts: tuple[Generator, Batch]) -> None:
    model, batch = parts
    model.zero_grad()
    model.text.requires_grad_(False)
    model(batch)["loss"].backward()
    model.text.requires_grad_(True)
    assert all(p.grad is None for p in model.text.parameters())
    assert model.transformer.context_embed.weight.grad.abs().sum() > 0


def test_the_loss_under_autocast(parts: tuple[Generator, Batch]) -> None:
    model, batch = parts
    with torch.no_grad():
        expected = model(batch)
        with torch.autocast("cpu", torch.bfloat16):
            found = model(batch)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert float(found[name]) == pytest.approx(float(value), rel=0.05)


def test_weights_of_tokens() -> None:
    weights = token_weights((1, 2, 4), 4)
    assert weights.tolist() == pytest.approx([1 / 21] * 5 + [4 / 21] * 4)
    assert token_weights((1, 2, 4), 16).tolist() == pytest.approx([1 / 21] * 21)


def test_scales_of_equal_weight() -> None:
    alike = token_weights((1, 2, 4), 4, balance=1)
    assert alike.tolist() == pytest.approx([1 / 3] + [1 / 12] * 4 + [1 / 12] * 4)
    half = token_weights((1, 2, 4), 4, balance=0.5)  # by their sides
    assert [float(half[:1]), float(half[1:5].sum()), float(half[5:].sum())] == pytest.approx([1 / 7, 2 / 7, 4 / 7])


def test_the_loss_uses_the_balance_of_the_recipe(parts: tuple[Generator, Batch], tmp_path: Path) -> None:
    """Of five codes, the first has the same weight as the four of the last scale together."""
    _, batch = parts
    model = filled(tiny_transformer.task(tmp_path, changed(scale_balance=1.0)).model)
    with torch.no_grad():
        found, logits = model(batch), model.predict(batch).logits
    each = F.cross_entropy(logits.transpose(1, 2), batch.indices, reduction="none")
    assert float(found["cross_entropy"]) == pytest.approx(float(each[:, 0].mean() + each[:, 1:].mean()) / 2, rel=1e-5)


# The recipe.


def test_how_many_tokens_are_kept() -> None:
    assert RECIPE.kept == 2 and changed(token_drop=0.0).kept == 4 and changed(token_drop=0.99).kept == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 48}, r"recipe\.side: expected 32, which is 16 times the last of transformer\.patch_nums"),
        ({"patch_nums": (1, 3)}, r"side: expected 48, .+, found 32; change the recipe"),
        ({"token_drop": 1.0}, r"recipe\.token_drop: expected 0 to below 1, found 1\.0"),
        ({"scale_balance": 1.5}, r"recipe\.scale_balance: expected 0 to 1, found 1\.5"),
        ({"mirror": 1.5}, r"mirror: expected 0 to 1, found 1\.5"),
        ({"cond_drop_rate": -1e9}, r"transformer\.cond_drop_rate: expected 0 to 1, found -1000000000\.0"),
        ({"diffusion_batch_mul": 0}, r"transformer\.diffusion_batch_mul: expected at least 1, found 0"),
    ],
)
def test_impossible_recipes_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        changed(**changes)


def test_the_shipped_recipe() -> None:
    from hart_edge.reference.checkpoint import read_json
    from hart_edge.reference.config import read_transformer_config
    from hart_edge.training.transformer.recipe import SHIPPED

    folder = Path(__file__).parents[3] / "hart_edge" / "models" / "hart-emoji" / "llm"
    shipped = read_transformer_config(read_json(folder / "config.json"))
    assert (SHIPPED.patch_nums, SHIPPED.embed_dim, SHIPPED.depth) == ((1, 2, 3, 4, 5, 6, 8), 256, 10)
    for name in ("patch_nums", "embed_dim", "depth", "num_heads", "context_token", "context_dim", "diff_width"):
        assert getattr(SHIPPED, name) == getattr(shipped, name)
    for name in ("disable_aln", "shared_aln", "attn_l2_norm", "use_context_norm", "use_timestep_embed", "diff_depth"):
        assert getattr(SHIPPED, name) == getattr(shipped, name)
    assert CONFIG.cond_drop_rate == SHIPPED.cond_drop_rate == 0.1
