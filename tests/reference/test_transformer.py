"""The transformer: the KV cache against one pass, rotary angles, modulation and pooling, the unconditional branch."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from hart_edge.bundle.settings import Settings
from hart_edge.reference.config import TokenizerConfig, TransformerConfig
from hart_edge.reference.hart import HART, double_context
from hart_edge.reference.transformer import (
    RMSNorm,
    StepEmbedding,
    context_rotary,
    normalize,
    rotate,
    scale_coordinates,
    visual_rotary,
)

SCALES = (1, 2, 3, 5)
BASE = TransformerConfig(SCALES, 32, 2, 2, 6, 10, diff_width=12, diff_depth=1, num_sampling_steps=2)
TOKENIZER = TokenizerConfig(SCALES, 30, z_channels=8, ch=32, ch_mult=(1, 1, 1, 1, 1))
FLAVOURS = {
    "plain": BASE,
    "no-l2": replace(BASE, attn_l2_norm=False),
    "adaln-max": replace(BASE, disable_aln=False, use_context_norm=False),
    "adaln-avg": replace(BASE, disable_aln=False, sep_aln_pooling_mode="avg"),
    "shared": replace(BASE, shared_aln=True, use_timestep_embed=False),
}


def make(config: TransformerConfig, seed: int = 0) -> HART:
    model = HART(config, TOKENIZER)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval().requires_grad_(False)


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


MASK = torch.tensor([[True] * 4 + [False] * 2, [False] * 3 + [True] * 3])


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_cache_equals_one_masked_pass(flavour: str) -> None:
    """Generation without guidance, then its own latents teacher-forced: the same logits."""
    model, context = make(FLAVOURS[flavour]), draw(2, 6, 10)
    noise = [draw(2 * 25, 8, seed=i) for i in range(3)]
    results = list(
        model.scales(
            context,
            MASK,
            lambda _, shape: torch.rand(shape, generator=torch.Generator().manual_seed(5)).clamp(1e-6, 1 - 1e-6),
            noise,
            Settings(cfg_scale=0.0),
        )
    )
    latents = torch.cat([result.next.flatten(2).transpose(1, 2) for result in results[:-1]], 1)  # (B, 4 + 9 + 25, Z)
    expected = model.teacher_forced(latents, context, MASK)
    found = torch.cat([result.logits for result in results], 1)
    assert found.shape == (2, 1 + 4 + 9 + 25, 30)
    assert found.std() > 0.3
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_scale_sees_itself_and_earlier_ones_only(flavour: str) -> None:
    model, context, latents = make(FLAVOURS[flavour]), draw(2, 6, 10), draw(2, 38, 8)
    before = model.teacher_forced(latents, context, MASK)
    changed = latents.clone()
    changed[:, 4 + 8] += 1.0  # the last token of scale 2
    after = model.teacher_forced(changed, context, MASK)
    same = (before - after).abs().amax((0, 2))
    assert same[: 1 + 4].max() == 0  # scales 0 and 1
    assert same[5:].min() > 1e-5  # scale 2, its first token too, and scale 3


def test_padding_is_attended_but_not_averaged() -> None:
    context, latents = draw(2, 6, 10), draw(2, 38, 8)
    other = torch.where(MASK[..., None], context, context + 1)
    for flavour, config in FLAVOURS.items():
        model = make(config)
        found = model.teacher_forced(latents, context, MASK) - model.teacher_forced(latents, other, MASK)
        assert found.abs().max() > 1e-2, flavour
        tokens, other_tokens = (model.transformer.embed_context(part) for part in (context, other))
        modulation = model.transformer.modulation(tokens, MASK)
        if flavour in ("adaln-avg", "shared"):
            assert torch.equal(modulation, model.transformer.modulation(other_tokens, MASK))
            assert modulation.shape == (2, 2 * 6, 32)
        elif flavour == "adaln-max":
            assert (modulation - model.transformer.modulation(other_tokens, MASK)).abs().max() > 1e-2
        else:
            assert modulation is None


def test_the_unconditional_branch() -> None:
    model = make(FLAVOURS["adaln-avg"])
    context, mask = double_context(draw(2, 6, 10), MASK)
    assert context.shape == (4, 6, 10)
    assert context[2:].abs().max() == 0
    assert mask.tolist()[2:] == [[1, 0, 0, 0, 0, 0]] * 2
    assert (mask.cumsum(1) - 1)[2:].abs().max() == 0
    tokens = model.transformer.embed_context(context)[2:]
    assert torch.equal(tokens, tokens[:1, :1].expand_as(tokens))  # all T tokens are equal: the norm of zeros is zero


def test_equal_keys_are_one_key_with_a_larger_score() -> None:
    """The export uses it for the unconditional branch: n equal keys are one key with log n added to its score."""
    scores, values = draw(7, 4), draw(4, 8, seed=2)
    repeated = torch.cat([scores[:, :1].expand(7, 5), scores[:, 1:]], 1).softmax(-1)
    once = torch.cat([scores[:, :1] + math.log(5), scores[:, 1:]], 1).softmax(-1)
    expected = repeated @ torch.cat([values[:1].expand(5, 8), values[1:]])
    torch.testing.assert_close(once @ values, expected, atol=1e-6, rtol=0)


def test_rotary_angles() -> None:
    cos, sin = context_rotary(torch.tensor([[-1, 0, 3]]), 8)
    assert cos.shape == sin.shape == (1, 3, 8)
    for i in range(8):
        angle = 3 * 10000 ** (-2 * (i % 4) / 8)
        assert float(cos[0, 2, i]) == pytest.approx(math.cos(angle), abs=1e-6)
        assert float(sin[0, 2, i]) == pytest.approx(math.sin(angle), abs=1e-6)
    assert torch.equal(cos[0, 1], torch.ones(8))
    cos, sin = visual_rotary(scale_coordinates(3, 5), torch.tensor([[4.0]]), 8)
    row, column = 2 * 5 / 3 + 4, 1 * 5 / 3 + 4  # token 7 of 3 x 3
    expected = [row, row / 100, row, row / 100, column, column / 100, column, column / 100]
    assert sin[0, 7].tolist() == pytest.approx([math.sin(angle) for angle in expected], abs=1e-5)
    assert cos[0, 7].tolist() == pytest.approx([math.cos(angle) for angle in expected], abs=1e-5)


def test_rotate_half() -> None:
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    quarter = torch.ones(1, 1, 4)
    assert rotate(x, 0 * quarter, quarter).flatten().tolist() == [-3, -4, 1, 2]
    assert torch.equal(rotate(x, quarter, 0 * quarter), x)
    q, k = draw(1, 2, 5, 8), draw(1, 2, 5, 8, seed=2)
    for shift in (1, 7):  # context scores depend only on the distance of positions
        at, later = (context_rotary(torch.arange(5)[None] + start, 8) for start in (0, shift))
        scores = [rotate(q, *angles) @ rotate(k, *angles).transpose(2, 3) for angles in (at, later)]
        torch.testing.assert_close(scores[0], scores[1], atol=1e-5, rtol=0)


def test_the_attention_scale_is_limited() -> None:
    model, latents, context = make(BASE), draw(2, 38, 8), draw(2, 6, 10)
    attention = model.transformer.blocks[0].attn
    results = []
    for value in (2.0, math.log(100), 7.0):
        attention.log_scale.fill_(value)
        results.append(model.teacher_forced(latents, context, MASK))
    assert torch.equal(results[1], results[2])
    assert (results[0] - results[1]).abs().max() > 1e-2


def test_rms_norm_and_normalize() -> None:
    x = draw(3, 16) * 5
    norm = RMSNorm(16, 1e-6)
    assert norm(x).square().mean(-1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert RMSNorm(16, 4.0)(torch.zeros(2, 16)).abs().max() == 0
    assert RMSNorm(1, 3.0)(torch.ones(1)).item() == pytest.approx(0.5)  # eps is inside the root
    assert normalize(x).norm(dim=-1).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    assert torch.isfinite(normalize(torch.zeros(1, 4))).all()


def test_step_embedding_has_cosines_first() -> None:
    embedding = StepEmbedding(256)
    embedding.mlp = torch.nn.Identity()
    found = embedding(torch.tensor([0, 7]))
    assert found[0].tolist() == [1.0] * 128 + [0.0] * 128
    k = torch.arange(128, dtype=torch.float64)
    angle = 7 * torch.exp(-math.log(10000) * k / 128)
    torch.testing.assert_close(found[1].double(), torch.cat([angle.cos(), angle.sin()]), atol=1e-5, rtol=0)
