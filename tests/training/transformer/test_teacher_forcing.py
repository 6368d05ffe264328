"""Teacher forcing of all scales: the reference's arithmetic, with and without dropped tokens and conditions."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from hart_edge.bundle.settings import Settings
from hart_edge.reference.config import TokenizerConfig, TransformerConfig
from hart_edge.reference.hart import HART, double_context
from hart_edge.training.transformer.recipe import drop_condition
from hart_edge.training.transformer.teacher_forcing import (
    attend,
    drop_tokens,
    for_autocast,
    hidden_states,
    teacher_inputs,
)
from tests.training.transformer.tiny_transformer import filled

SCALES = (1, 2, 3)
BASE = TransformerConfig(SCALES, 32, 2, 2, 6, 10, diff_width=12, diff_depth=1, num_sampling_steps=2)
TOKENIZER = TokenizerConfig(SCALES, 30, z_channels=8, ch=32, ch_mult=(1, 1, 1, 1, 1))
FLAVOURS = {
    "plain": BASE,
    "no-l2": dataclasses.replace(BASE, attn_l2_norm=False),
    "adaln": dataclasses.replace(BASE, disable_aln=False, use_context_norm=False),
    "shared": dataclasses.replace(BASE, shared_aln=True, use_timestep_embed=False),
}
MASK = torch.tensor([[True] * 4 + [False] * 2, [False] * 3 + [True] * 3])
ALL = torch.arange(9).expand(2, -1)


def make(flavour: str = "shared") -> HART:
    torch.manual_seed(0)
    return filled(HART(FLAVOURS[flavour], TOKENIZER)).eval().requires_grad_(False)


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def logits_of(model: HART, inputs: Tensor, context: Tensor, mask: Tensor, kept: Tensor) -> Tensor:
    return model.transformer.logits(*hidden_states(model.transformer, inputs, context, mask, kept))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_without_dropping_it_is_the_reference_bit_for_bit(flavour: str) -> None:
    model, inputs, context = make(flavour), draw(2, 13, 8), draw(2, 6, 10, seed=2)
    expected = model.teacher_forced(inputs, context, MASK)
    found = logits_of(model, inputs, context, MASK, ALL)
    assert found.shape == (2, 14, 30) and expected.std() > 0.1
    assert torch.equal(found, expected)


def test_under_autocast() -> None:
    model, inputs, context = make(), draw(2, 13, 8), draw(2, 6, 10, seed=2)
    expected = logits_of(model, inputs, context, MASK, ALL)
    for_autocast(model.transformer)
    assert torch.equal(logits_of(model, inputs, context, MASK, ALL), expected)  # in float32 it is the same
    with torch.autocast("cpu", torch.bfloat16):
        found = logits_of(model, inputs, context, MASK, ALL)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).abs().max() < 0.1 * expected.abs().max()


def test_no_token_attends_to_a_dropped_one() -> None:
    """A whole pass in which the dropped tokens are masked gives the same, so kept tokens have their true positions."""
    model, inputs, context = make(), draw(2, 13, 8), draw(2, 6, 10, seed=2)
    places = [0, 3, 7]
    kept = torch.tensor([places, places])
    found = logits_of(model, drop_tokens(inputs, kept, 9), context, MASK, kept)
    seen = torch.zeros(9, dtype=torch.bool)
    seen[places] = True
    forward = model.transformer.forward

    def masked(*arguments: Tensor, mask: Tensor) -> tuple[Tensor, list]:
        return forward(*arguments, mask=mask & torch.cat([torch.ones(10, dtype=torch.bool), seen]))

    model.transformer.forward = masked
    expected = model.teacher_forced(inputs, context, MASK)
    torch.testing.assert_close(found[:, :5], expected[:, :5], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, 5:], expected[:, 5:][:, places], atol=1e-4, rtol=0)


def test_pictures_may_keep_different_tokens() -> None:
    model, inputs, context = make(), draw(2, 13, 8), draw(2, 6, 10, seed=2)
    kept = torch.tensor([[0, 3, 7], [1, 2, 8]])
    both = logits_of(model, drop_tokens(inputs, kept, 9), context, MASK, kept)
    for i in range(2):
        own = slice(i, i + 1)
        alone = logits_of(model, drop_tokens(inputs[own], kept[own], 9), context[own], MASK[own], kept[own])
        torch.testing.assert_close(both[own], alone, atol=1e-4, rtol=0)


def test_no_scale_sees_a_later_one() -> None:
    model, inputs, context = make(), draw(2, 13, 8), draw(2, 6, 10, seed=2)
    other = inputs.clone()
    other[:, 4:] += 1  # the last scale's
    before, after = (logits_of(model, each, context, MASK, ALL) for each in (inputs, other))
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] - after[:, 5:]).abs().amin(-1).max() > 0.01


def test_inputs_are_what_the_loop_feeds() -> None:
    model, noise = make(), [draw(2 * 9, 8, seed=i) for i in range(3)]
    results = list(
        model.scales(
            draw(2, 6, 10),
            MASK,
            lambda scale, shape: torch.rand(shape, generator=torch.Generator().manual_seed(scale)).clamp(1e-6),
            noise,
            Settings(smooth=False),
        )
    )
    expected = torch.cat([each.next.flatten(2).transpose(1, 2) for each in results[:-1]], 1)
    found = teacher_inputs(model.quantizer, [each.indices for each in results])
    assert found.shape == (2, 13, 8) and expected.std() > 0.1
    assert torch.equal(found, expected)


def test_a_dropped_condition_is_the_unconditional_branch() -> None:
    context = draw(3, 6, 10)
    mask = torch.tensor([[True] * 4 + [False] * 2, [False] * 3 + [True] * 3, [True] * 6])
    doubled, doubled_mask = double_context(context, mask)
    found, found_mask = drop_condition(context, mask, torch.tensor([True, False, True]))
    assert torch.equal(found, torch.stack([doubled[3], context[1], doubled[5]]))
    assert torch.equal(found_mask.long(), torch.stack([doubled_mask[3], mask[1].long(), doubled_mask[5]]))
    assert (found_mask.long().cumsum(1) - 1)[0].tolist() == [0] * 6  # positions follow


@pytest.mark.long
def test_compiled_attention_is_the_same_but_for_rounding() -> None:
    """Compiled, it is written out in bfloat16; else it is the fused kernel in float32. Gradients too."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 9, 16, generator=generator) for _ in range(3))
    mask = torch.ones(9, 9, dtype=torch.bool).tril()
    results = []
    for function in (attend, torch.compile(attend)):
        given = [each.clone().requires_grad_() for each in (q, k)] + [v.bfloat16().requires_grad_()]
        with torch.autocast("cpu", torch.bfloat16):
            made = function(*given, mask)
        assert made.dtype == torch.bfloat16
        made.float().square().sum().backward()
        results.append([made, *(each.grad for each in given)])
    for plain, compiled in zip(*results, strict=True):
        difference = (compiled.float() - plain.float()).norm() / plain.float().norm()
        assert 0 < difference < 0.03  # not 0, so it was another path
