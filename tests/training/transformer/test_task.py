"""Runs of the transformer: batches that depend only on seed and step, resuming, figures, sheets, checkpoints."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.draw import draw_pictures
from hart_edge.reference.pack import pack
from hart_edge.reference.text_model import load_text_model
from hart_edge.reference.weight_files import read_tensors
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer
from hart_edge.training.captions import TextRecipe, open_text
from hart_edge.training.checkpoints import check_state, load_state, states
from hart_edge.training.errors import TrainingError
from hart_edge.training.loop import Habits, TrainingSession, begin, train
from hart_edge.training.transformer.recipe import Batch
from hart_edge.training.transformer.setup import examples_of, fingerprint_of, log_how_pictures_are_drawn
from hart_edge.training.transformer.task import SHEET_SETTINGS, TransformerTask
from tests.training.tokenizer.tiny_tokenizer import QUIET
from tests.training.transformer import tiny_transformer
from tests.training.transformer.tiny_transformer import CONFIG, changed


def run(task: TransformerTask, folder: Path, habits: Habits = QUIET, **more: object) -> int:
    return train(task, folder, Accelerator(cpu=True), habits, **more)


def batch_of(task: TransformerTask, share: slice, step: int = 3) -> Batch:
    return task.batch(np.arange(8), share, step)


# Batches.


@pytest.mark.long
def test_a_batch_follows_from_seed_and_step(tmp_path: Path) -> None:
    task = tiny_transformer.task(tmp_path, changed(cond_drop_rate=0.5))
    one, again, other = (batch_of(task, slice(0, 8), step) for step in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert all(not torch.equal(getattr(one, name), getattr(other, name)) for name in ("ids", "kept", "steps", "noise"))
    assert 0 < int(one.dropped.sum()) < 8


def test_shares_make_up_the_batch(tmp_path: Path) -> None:
    task = tiny_transformer.task(tmp_path, changed(cond_drop_rate=0.5))
    whole, shares = batch_of(task, slice(0, 8)), [batch_of(task, slice(i, i + 2)) for i in range(0, 8, 2)]
    for name, tensor in whole._asdict().items():
        assert torch.equal(tensor, torch.cat([getattr(share, name) for share in shares])), name


def test_the_contents_of_a_batch(tmp_path: Path) -> None:
    """Codes, inputs and residuals belong to the tokens that are kept; captions to their pictures."""
    task = tiny_transformer.task(tmp_path)
    batch = batch_of(task, slice(0, 8))
    codebook = task.hart.quantizer.codebook.weight
    for i in range(8):
        codes = torch.from_numpy(task.train.codes.indices[i].astype(np.int64))
        kept = batch.kept[i]
        assert kept.tolist() == sorted(set(kept.tolist())) and len(kept) == 2
        assert batch.indices[i].tolist() == [codes[0], *codes[1:][kept]]
        assert torch.equal(batch.codes[i], codebook[codes[1:][kept]])
        rest = torch.from_numpy(task.train.codes.rest[i]).float()[kept]
        torch.testing.assert_close(batch.codes[i] + 0.6 * batch.residual[i], rest, atol=1e-5, rtol=0)
        own = [task.text.tokenizer.encode(caption)[0].tolist() for caption in tiny_transformer.pictures(8).captions[i]]
        assert batch.ids[i].tolist() in own
    assert {batch_of(task, slice(0, 1), step).ids[0, 3].item() for step in range(20)} != {batch.ids[0, 3].item()}


def test_every_token_is_kept_at_some_step(tmp_path: Path) -> None:
    task = tiny_transformer.task(tmp_path)
    kept = torch.stack([batch_of(task, slice(0, 8), step).kept for step in range(40)])
    counts = torch.bincount(kept.flatten(), minlength=4) / kept[..., 0].numel()
    assert counts.tolist() == pytest.approx([0.5] * 4, abs=0.1)


def test_mirror_images_are_seen_where_captions_allow(tmp_path: Path) -> None:
    task = tiny_transformer.task(tmp_path, changed(mirror=1.0))  # captions with a digit are not allowed
    assert task.train.twins is None and task.train.twin_of is None
    captions = (("left arrow",), ("a face",), ("two hearts", "twins, flag"), ("a cat",))
    some = dataclasses.replace(tiny_transformer.pictures(4), captions=captions)
    task.train = examples_of(Accelerator(cpu=True), task.hart, task.text, some, tmp_path, mirror=True)
    twins, plain = task.train.twins, task.train.codes
    assert twins is not None and task.train.twin_of.tolist() == [-1, 0, -1, 1]
    found = task.codes_of(np.array([0, 1, 3, 3]), np.array([True, True, True, False]))
    for name in ("indices", "rest"):
        one, other = getattr(plain, name), getattr(twins, name)
        assert np.array_equal(getattr(found, name), np.stack([one[0], other[0], other[1], one[3]]))
    assert not np.array_equal(twins.rest[1], plain.rest[3])


# Which pictures.


def test_pictures_are_drawn_by_group_and_weight(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    plain = tiny_transformer.task(tmp_path)
    assert plain.shares is None
    groups, weights = ("",) * 4 + ("six",) * 6, (1.0,) * 9 + (5.0,)
    train = dataclasses.replace(plain.train, groups=groups, weights=weights)

    def task_of(balance: float) -> TransformerTask:
        recipe = changed(group_balance=balance)
        rest = (plain.validation, plain.text, plain.hart, plain.tokenizer_folder, plain.fingerprint)
        return TransformerTask(recipe, plain.model, train, *rest)

    assert task_of(1.0).shares.tolist() == pytest.approx([0.2] * 4 + [0.02] * 5 + [0.1])
    assert task_of(0.0).shares.tolist() == pytest.approx([0.1] * 4 + [0.06] * 5 + [0.3])
    with caplog.at_level(logging.INFO):
        log_how_pictures_are_drawn(changed(group_balance=1.0), train)
        log_how_pictures_are_drawn(changed(group_balance=1.0), plain.train)
    assert [r.getMessage() for r in caplog.records] == [
        "5 groups of pictures; a picture is seen 0.5 to 4.8 times, median 1.4"
    ]


def test_groups_and_weights_belong_to_the_fingerprint(tmp_path: Path) -> None:
    model, plain = tiny_transformer.tokenizer(), tiny_transformer.task(tmp_path)
    grouped, alike = (
        dataclasses.replace(plain.train, groups=groups, weights=(1.0,) * 10) for groups in (("", "a") * 5, ("",) * 10)
    )
    assert fingerprint_of(alike, model, plain.text) == plain.fingerprint
    assert fingerprint_of(grouped, model, plain.text) != plain.fingerprint


# Runs.


@pytest.mark.long
def test_pictures_are_learned(tmp_path: Path) -> None:
    task = tiny_transformer.task(tmp_path, changed(steps=80, learning_rate=1e-2, cond_drop_rate=0.0))
    task.validation = task.train
    before = task.figures()
    run(task, tmp_path / "run")
    after = task.figures()
    assert after["cross_entropy"] < 0.75 * before["cross_entropy"]
    assert after["residual"] < 0.4 * before["residual"]
    assert after["right"] > 0.25 > before["right"]


@pytest.mark.long
def test_resumed_is_uninterrupted(tmp_path: Path) -> None:
    """Two steps, and two more after a resume, give the same weights, average and optimizer state, bit for bit."""
    whole, first, second = (tiny_transformer.task(tmp_path, changed(steps=4)) for _ in range(3))
    run(whole, tmp_path / "whole")
    steps = iter([False, True])
    assert run(first, tmp_path / "parts", stop=lambda: next(steps)) == 2
    (file,) = states(tmp_path / "parts")
    state = load_state(file)
    check_state(file, state, second.recipe, second.fingerprint)
    assert run(second, tmp_path / "parts", state=state) == 4
    one, other = (load_state(states(tmp_path / name)[-1]) for name in ("whole", "parts"))
    for part in ("model", "average"):
        assert one[part].keys() == other[part].keys()
        assert all(torch.equal(one[part][name], other[part][name]) for name in one[part])
    for name in ("llm/ema_model", "llm/model", "text_model/model"):
        one, other = (read_tensors(tmp_path / each / f"{name}.safetensors") for each in ("whole", "parts"))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.long
def test_a_resume_from_another_configuration(tmp_path: Path) -> None:
    task = tiny_transformer.task(tmp_path)
    run(task, tmp_path / "run", stop=lambda: True)
    (file,) = states(tmp_path / "run")
    other = tiny_transformer.task(tmp_path, changed(token_drop=0.25, depth=1))
    with pytest.raises(TrainingError) as caught:
        check_state(file, load_state(file), other.recipe, other.fingerprint)
    assert "expected the recipe of the run, found other values (then, now):" in str(caught.value)
    assert "  token_drop: 0.5, 0.25\n" in str(caught.value)
    assert "  transformer.depth: 2, 1\n" in str(caught.value)
    with pytest.raises(TrainingError, match="expected the examples of the run, found others; restore the data"):
        check_state(file, load_state(file), task.recipe, tiny_transformer.task(tmp_path, count=9).fingerprint)


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path: Path) -> None:
    task = tiny_transformer.task(tmp_path)
    task.train.codes.rest[:] = np.nan
    with pytest.raises(
        TrainingError, match=r"step 0: expected finite gradients, found norm nan \(loss nan, cross_entro"
    ):
        run(task, tmp_path / "run")
    assert states(tmp_path / "run") == []


# Figures and sheets.


def test_figures_are_means_over_scales(tmp_path: Path) -> None:
    task = tiny_transformer.task(tmp_path)
    tiny_transformer.filled(task.model)
    found = task.figures()
    assert found == task.figures()
    assert found.keys() == {"residual"} | {f"{n}{s}" for n in ("cross_entropy", "right") for s in ("", "_1", "_2")}
    for name in ("cross_entropy", "right"):
        assert found[name] == pytest.approx((found[f"{name}_1"] + 4 * found[f"{name}_2"]) / 5)
    batches = list(task.validation_batches())
    assert [len(batch.ids) for batch in batches] == [4] and not batches[0].dropped.any()
    logits = task.model.predict(batches[0]).logits
    assert found["right_1"] == float((logits[:, 0].argmax(-1) == batches[0].indices[:, 0]).float().mean())


def test_a_sheet_is_drawn_by_the_reference(tmp_path: Path) -> None:
    task = tiny_transformer.task(tmp_path)
    tiny_transformer.filled(task.model, spread=0.1)
    sheet = np.asarray(task.sheet())
    assert sheet.shape == (3 * 32, 4 * 32, 3)
    assert np.array_equal(sheet[:32, 32:64], task.validation.images[1])
    ids = torch.from_numpy(task.text.tokenizer.encode("picture 1"))
    with torch.no_grad():
        context, mask = task.model.text(ids)
    drawn = draw_pictures(task.hart, context, mask, [1], SHEET_SETTINGS)[0]
    assert np.abs(sheet[64:, 32:64].astype(int) - drawn).max() <= 1  # whatever else is in the batch
    assert np.abs(sheet[64:, 32:64].astype(int) - sheet[32:64, 32:64]).max() > 5  # another seed


# What is published.


@pytest.mark.long
def test_a_checkpoint_that_can_be_used(tmp_path: Path) -> None:
    task = tiny_transformer.task(tmp_path, changed(steps=3, cond_drop_rate=0.25))
    run(task, tmp_path / "run")
    checkpoint = load_checkpoint(tmp_path / "run")
    assert checkpoint.read[0].name == "ema_model.safetensors" and checkpoint.has_text_model
    assert checkpoint.model.config == task.recipe.transformer and checkpoint.model.config.cond_drop_rate == 0.25
    state = load_state(states(tmp_path / "run")[-1])
    for name, tensor in checkpoint.model.state_dict().items():
        if name.startswith(("transformer.", "residual.")):
            assert torch.equal(tensor, state["average"][name]), name
        else:
            assert torch.equal(tensor, task.hart.state_dict()[name]), name
    own = read_tensors(tmp_path / "run" / "llm" / "model.safetensors")
    assert torch.equal(own["head.weight"], state["model"]["transformer.head.weight"])
    assert not torch.equal(own["head.weight"], state["average"]["transformer.head.weight"])
    text, tokenizer = load_text_model(
        tmp_path / "run" / "text_model", CONFIG.context_token, PromptTokenizer.padding_with
    )
    assert torch.equal(text.model.embed_tokens.weight, state["average"]["text.model.embed_tokens.weight"])
    context, mask = text(torch.from_numpy(tokenizer.encode("a picture")))
    pictures = draw_pictures(checkpoint.model, context, mask, [7], SHEET_SETTINGS)
    assert pictures.shape == (1, 32, 32, 3) and pictures.std() > 1
    packed = pack(tmp_path / "run", tmp_path / "packed")
    assert {file.path.split("/")[0] for file in packed} == {"llm", "text_model", "tokenizer"}


@pytest.mark.long
@pytest.mark.parametrize(
    "flavour",
    [
        {"shared_aln": False},
        {"disable_aln": False, "shared_aln": False, "use_timestep_embed": False, "use_context_norm": False},
        {"attn_l2_norm": False},
    ],
    ids=["plain", "adaln", "no-l2"],
)
def test_every_flavour_is_read_back(tmp_path: Path, flavour: dict[str, bool]) -> None:
    task = tiny_transformer.task(tmp_path, changed(**flavour))
    task.publish(tmp_path / "out", 0)
    model = load_checkpoint(tmp_path / "out").model
    assert model.config == task.recipe.transformer
    for name, tensor in task.model.state_dict().items():
        assert name.startswith("text.") or torch.equal(model.state_dict()[name], tensor), name


@pytest.mark.long
def test_a_frozen_text_model_stays(tmp_path: Path) -> None:
    """It is published unchanged, and the optimizer does not update it."""
    first = tiny_transformer.task(tmp_path)
    first.publish(tmp_path / "first", 0)
    recipe = changed(train=False, steps=2, warmup=1)
    taken = open_text(tmp_path / "first" / "text_model", TextRecipe(train=False), 8, 6)
    task = tiny_transformer.task(tmp_path, recipe, text=taken)
    run(task, tmp_path / "run")
    one, other = (read_tensors(tmp_path / name / "text_model" / "model.safetensors") for name in ("first", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    head = load_checkpoint(tmp_path / "run").model.transformer.head.weight
    assert not torch.equal(head, load_checkpoint(tmp_path / "first").model.transformer.head.weight)


def test_the_session_publishes_the_latest_weights(tmp_path: Path) -> None:
    task = tiny_transformer.task(tmp_path)
    _, session = begin(task, Accelerator(cpu=True), None)
    assert isinstance(session, TrainingSession) and task.session is session
    session.average.state["transformer.head.bias"].fill_(3.0)
    with session.average.applied():
        task.publish(tmp_path / "out", 1)
    found = {name: read_tensors(tmp_path / "out" / "llm" / f"{name}.safetensors") for name in ("model", "ema_model")}
    assert found["ema_model"]["head.bias"].unique().tolist() == [3.0]
    assert found["model"]["head.bias"].unique().tolist() == [0.0]
