"""Self-correction: which codes are made wrong, by which codes they are replaced, and targets that correct them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from hart_edge.evaluation.reconstruction import to_range
from hart_edge.reference.config import RESIDUAL_SCALE
from hart_edge.reference.quantizer import Quantizer
from hart_edge.training.errors import TrainingError
from hart_edge.training.tokenizer.recipe import Tokenizer
from hart_edge.training.transformer.codes import Codes, codes_of, lesson_of
from hart_edge.training.transformer.self_correction import (
    Mistakes,
    SelfCorrection,
    corrected_lesson,
    mistakes_of,
    near_codes,
)
from tests.training.tokenizer import tiny_tokenizer
from tests.training.transformer import tiny_transformer
from tests.training.transformer.tiny_transformer import changed

ROWS = np.arange(6)
PATCHES = (1, 2, 3)
SIDE = 16 * PATCHES[-1]


def three_scales(tmp_path: Path) -> tuple[Tokenizer, Quantizer, Codes, np.ndarray]:
    """A tokenizer, its quantiser at scales 1 2 3, and codes of six pictures."""
    model = tiny_transformer.tokenizer()
    quantizer = Quantizer(model.config, PATCHES).eval().requires_grad_(False)
    quantizer.load_state_dict(model.quantizer.state_dict())
    small = tiny_tokenizer.pictures(len(ROWS))
    images = np.ascontiguousarray(np.pad(small, ((0, 0), (0, SIDE - 32), (0, SIDE - 32), (0, 0)), "edge"))
    return model, quantizer, codes_of(Accelerator(cpu=True), model.autoencoder, quantizer, images, tmp_path), images


def mistakes(*places: tuple[int, int], which: float = 0.0) -> Mistakes:
    """Mistakes at the given (picture, code) places."""
    wrong = np.zeros((len(ROWS), 5), bool)
    for place in places:
        wrong[place] = True
    return Mistakes(wrong, np.full(wrong.shape, which))


# Which codes are wrong.


def test_mistakes_follow_from_seed_and_step() -> None:
    config = SelfCorrection((0.5, 0.5), pictures=1.0)
    one, again, other = (mistakes_of(config, PATCHES, 8, 3, step) for step in (5, 5, 6))
    assert one is not None and again is not None and other is not None
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one.wrong, other.wrong)
    parts = [one.share(slice(i, i + 2)) for i in range(0, 8, 2)]
    assert np.array_equal(one.which, np.concatenate([part.which for part in parts]))


def test_rates_apply_to_scales_and_pictures() -> None:
    found = mistakes_of(SelfCorrection((1.0, 0.25), pictures=0.5), (1, 2, 3, 4), 4000, 0, 0)
    assert found is not None and found.wrong.shape == (4000, 1 + 4 + 9)
    assert found.wrong[:, 0].mean() == pytest.approx(0.5, abs=0.03)  # of half the pictures, every one
    assert found.wrong[:, 1:5].mean() == pytest.approx(0.125, abs=0.02)
    assert not found.wrong[:, 5:].any() and not found.wrong[~found.wrong[:, 0]].any()


@pytest.mark.parametrize("config", [SelfCorrection(), SelfCorrection((0.0, 0.0)), SelfCorrection((1.0,), pictures=0.0)])
def test_without_mistakes(config: SelfCorrection) -> None:
    assert mistakes_of(config, PATCHES, 4, 0, 0) is None


# What they are replaced by.


def test_near_codes_are_the_next_ones_by_their_distance() -> None:
    quantizer = tiny_transformer.tokenizer().quantizer
    codebook = quantizer.codebook.weight
    tokens = torch.randn(5, codebook.shape[1], generator=torch.Generator().manual_seed(0))
    order = torch.cdist(tokens, codebook).argsort(1)
    for which, near, place in ((0.0, 3, 1), (0.999999, 3, 3), (0.999999, 1, 1), (0.999999, 10**6, len(codebook) - 1)):
        found = near_codes(quantizer, tokens, torch.full((5,), which).double(), near)
        assert found.tolist() == order[:, place].tolist(), (which, near)
    distance = (tokens[0] - codebook[order[0, 1:4]]).square().sum(-1)
    expected = torch.exp(-distance / distance[0])
    even = (torch.arange(3000).double() + 0.5) / 3000
    drawn = near_codes(quantizer, tokens[:1].expand(3000, -1), even, 3)
    shares = torch.stack([(drawn == code).double().mean() for code in order[0, 1:4]])
    torch.testing.assert_close(shares, (expected / expected.sum()).double(), atol=1e-3, rtol=0)


# Inputs and targets.


def test_pictures_without_a_mistake_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    _, quantizer, codes, _ = three_scales(tmp_path)
    plain = lesson_of(quantizer, codes, ROWS)
    none, some = (corrected_lesson(quantizer, codes, ROWS, each, 4) for each in (mistakes(), mistakes((2, 0))))
    others = [0, 1, 3, 4, 5]
    for field in dataclasses.fields(plain):
        one, without, other = (getattr(lesson, field.name) for lesson in (plain, none, some))
        assert torch.equal(one, without) and torch.equal(one[others], other[others]), field.name
    assert not torch.equal(plain.inputs[2], some.inputs[2])


def test_the_wrong_code_is_shown_and_the_right_one_is_the_target(tmp_path: Path) -> None:
    _, quantizer, codes, _ = three_scales(tmp_path)
    plain = lesson_of(quantizer, codes, ROWS)
    lesson = corrected_lesson(quantizer, codes, ROWS, mistakes((1, 0), (4, 3)), 4)
    assert lesson.indices[1, 0] == plain.indices[1, 0]  # nothing went wrong before it
    assert torch.equal(lesson.indices[4, :5], plain.indices[4, :5])
    shown = lesson.inputs[1, :4]  # of scale 1: what the wrong code of scale 0 makes
    every = torch.arange(quantizer.codebook.num_embeddings)
    made = quantizer.reduce(quantizer.expand(quantizer.codebook(every)[:, None], 0), 1)
    fits = (made - shown).abs().amax((1, 2)) < 1e-6
    assert fits.any() and not fits[plain.indices[1, 0]]


def test_later_scales_correct_mistakes(tmp_path: Path) -> None:
    """Every target is the code nearest to what the inputs leave of the latent, and all together add up to it."""
    model, quantizer, codes, images = three_scales(tmp_path)
    latent = model.autoencoder.encode(to_range(images))
    every = mistakes(*((picture, code) for picture in ROWS for code in (0, 2)), which=0.7)
    lesson = corrected_lesson(quantizer, codes, ROWS, every, 4)
    f_hat = lesson.inputs[:, 4:]  # of the last scale: all that was added up, unreduced
    whole = f_hat + lesson.codes + RESIDUAL_SCALE * lesson.residual
    scale = float(latent.abs().max())
    torch.testing.assert_close(whole, latent.flatten(2).transpose(1, 2), atol=2e-3 * scale, rtol=0)
    rest = whole - f_hat
    assert torch.equal(lesson.indices[:, 5:], quantizer.nearest(rest))
    assert torch.equal(lesson.codes, quantizer.codebook(lesson.indices[:, 5:]))
    plain = lesson_of(quantizer, codes, ROWS)
    assert not torch.equal(lesson.indices[:, 1:5], plain.indices[:, 1:5])


# In a run.


@pytest.mark.long
def test_a_batch_with_mistakes_differs_in_nothing_else(tmp_path: Path) -> None:
    plain = tiny_transformer.task(tmp_path).batch(np.arange(8), slice(0, 8), 3)
    recipe = changed(self_correction=SelfCorrection((1.0,), pictures=1.0, near=4))
    task = tiny_transformer.task(tmp_path, recipe)
    wrong = task.batch(np.arange(8), slice(0, 8), 3)
    for name in ("ids", "dropped", "kept", "steps", "noise"):
        assert torch.equal(getattr(plain, name), getattr(wrong, name)), name
    assert torch.equal(plain.indices[:, 0], wrong.indices[:, 0])
    assert (plain.inputs != wrong.inputs).any(-1).all()
    halves = [task.batch(np.arange(8), slice(i, i + 4), 3) for i in (0, 4)]
    for name, tensor in wrong._asdict().items():
        assert torch.equal(tensor, torch.cat([getattr(half, name) for half in halves])), name


@pytest.mark.long
def test_figures_are_of_true_codes(tmp_path: Path) -> None:
    recipe = changed(self_correction=SelfCorrection((1.0,), pictures=1.0))
    assert tiny_transformer.task(tmp_path, recipe).figures() == tiny_transformer.task(tmp_path).figures()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rates": (0.5, 1.5)}, r"self_correction.rates: expected numbers from 0 to 1, found \(0.5, 1.5\); change the"),
        ({"pictures": -0.1}, "self_correction.pictures: expected 0 to 1, found -0.1"),
        ({"near": 0}, "self_correction.near: expected at least 1, found 0"),
    ],
)
def test_values_that_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        SelfCorrection(**values)


def test_more_rates_than_scales() -> None:
    message = r"self_correction.rates: expected at most 1, one for each scale but the last, found \(0.5, 0.2\)"
    with pytest.raises(TrainingError, match=message):
        changed(self_correction=SelfCorrection((0.5, 0.2)))
