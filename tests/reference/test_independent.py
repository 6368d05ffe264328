"""The reference against a second implementation that was written from docs/arithmetic.md only.

naive_hart.py is numpy in float64, with loops and no cache; it shares nothing with hart_edge/reference/ but the files.
The configurations are ones that the golden records do not have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from hart_edge.bundle.settings import Settings
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.hart import HART
from tests.reference.naive_hart import NaiveHART
from tests.reference.tiny_hart import Tiny, tiny_checkpoint, tiny_context


@dataclass(frozen=True)
class Case:
    """A configuration: changes to the defaults of tiny_hart, the padding, and the sampling settings."""

    name: str
    llm: dict
    tokenizer: dict = field(default_factory=dict)
    padding: str = "right"
    lengths: tuple[int, ...] = (3, 6)
    settings: dict = field(default_factory=dict)


CASES = [
    Case(
        "two-scales",  # the guidance of both scales is then 0
        {"patch_nums": [1, 3], "depth": 1, "num_heads": 4, "num_sampling_steps": "1"},
        {"share_quant_resi": 1, "vocab_size": 50},
        settings={"cfg_scale": 3.0},
    ),
    Case(
        "adaln-max",
        {"patch_nums": [1, 2, 5], "disable_aln": False, "use_context_norm": False, "embed_dim": 48, "num_heads": 3},
        {"z_channels": 32, "vocab_size": 700, "share_quant_resi": 2},
        padding="left",
        settings={"smooth": False, "top_p": 0.8},
    ),
    Case(
        "adaln-average",
        {
            "patch_nums": [1, 3, 4],
            "disable_aln": False,
            "sep_aln_pooling_mode": "avg",
            "attn_l2_norm": False,
            "use_timestep_embed": False,
            "mlp_ratio": 16.0,
            "norm_eps": 1e-3,
        },
        {"share_quant_resi": 0, "vocab_size": 130},
        padding="left",
        settings={"cfg_scale": 1.5},
    ),
    Case(
        "shared-table",
        {
            "patch_nums": [1, 2, 3, 4, 6],
            "shared_aln": True,
            "embed_dim": 64,
            "num_heads": 16,
            "num_sampling_steps": 20,
            "use_timestep_embed": False,
            "mlp_ratio": 2.5,
        },
        {"share_quant_resi": 4, "quant_resi": -0.3},
        lengths=(1, 4),
        settings={"top_k": 7},
    ),
    Case(
        "shared-table-average",
        {
            "patch_nums": [1, 2, 4],
            "shared_aln": True,
            "sep_aln_pooling_mode": "avg",
            "attn_l2_norm": False,
            "use_context_norm": False,
            "num_sampling_steps": "8",
            "diff_depth": 1,
            "norm_eps": 1e-2,
        },
        {"ch_mult": [1, 2, 1, 3, 2], "share_quant_resi": 3},
        padding="left",
        settings={"smooth": False},
    ),
    Case(
        "plain-nine-scales",  # past scale 7, where 300 codes are kept instead of 600
        {"patch_nums": [1, 2, 3, 4, 5, 6, 7, 8, 9], "depth": 1, "attn_l2_norm": False, "context_token": 9},
        {"vocab_size": 750, "share_quant_resi": 5},
        lengths=(9, 2),
        settings={"cfg_scale": 6.0},
    ),
    Case(
        "deep",
        {"patch_nums": [1, 4, 5], "depth": 5, "num_heads": 1, "diff_depth": 4, "diff_width": 40},
        {"quant_resi": 0.0, "vocab_size": 620, "ch_mult": [2, 1, 1, 2, 1]},
        padding="left",
        lengths=(5, 1),
        settings={"top_p": 0.5, "top_k": 500},
    ),
    Case(
        "one-image-no-guidance",
        {"patch_nums": [1, 2, 3, 7], "disable_aln": False, "shared_aln": True, "context_dim": 33, "context_token": 1},
        {"z_channels": 5, "quant_resi": 1.0, "norm_groups": 8},
        lengths=(1,),
        settings={"cfg_scale": 0.0, "smooth": False},
    ),
]


@dataclass(frozen=True)
class Pair:
    """Both implementations of one case, and their inputs."""

    case: Case
    tiny: Tiny
    model: HART
    naive: NaiveHART
    context: np.ndarray
    mask: np.ndarray


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    case: Case = request.param
    folder: Path = tmp_path_factory.mktemp(case.name)
    tiny = tiny_checkpoint(folder, 100 + CASES.index(case), llm=case.llm, tokenizer=case.tokenizer)
    context, mask = tiny_context(tiny.llm, case.padding, case.lengths, seed=5)
    naive = NaiveHART(tiny.llm, tiny.llm_state, tiny.tokenizer, tiny.tokenizer_state)
    yield Pair(case, tiny, load_checkpoint(folder).model, naive, context, mask)


def agree(found: torch.Tensor, expected: np.ndarray, tolerance: float, least_spread: float) -> None:
    """Require equal shapes, values within the tolerance, and enough spread of values for that to mean something."""
    assert found.shape == expected.shape
    assert expected.std() > least_spread
    assert np.abs(found.numpy() - expected).max() < tolerance


@pytest.mark.long
def test_teacher_forced_logits(pair: Pair) -> None:
    count = sum(side * side for side in pair.tiny.llm["patch_nums"][1:])
    shape = (len(pair.context), count, pair.tiny.tokenizer["z_channels"])
    latents = np.random.default_rng(6).standard_normal(shape).astype(np.float32)
    with torch.no_grad():
        found = pair.model.teacher_forced(*map(torch.from_numpy, (latents, pair.context, pair.mask)))
    expected = [
        pair.naive.teacher_forced(*rows) for rows in zip(latents.astype(float), pair.context, pair.mask, strict=True)
    ]
    agree(found, np.array(expected), 1e-4, 1.0)


@pytest.mark.long
def test_generation(pair: Pair) -> None:
    sides, Z, V = pair.model.patch_nums, pair.tiny.tokenizer["z_channels"], pair.tiny.tokenizer["vocab_size"]
    batch, steps = len(pair.context), int(pair.tiny.llm["num_sampling_steps"])
    settings = {"cfg_scale": 4.5, "smooth": True} | pair.case.settings
    random = np.random.default_rng(7)
    uniforms = [random.uniform(1e-6, 1 - 1e-6, (batch, side * side, V)).astype(np.float32) for side in sides]
    n = batch * sides[-1] ** 2
    noise = [random.standard_normal((n if i == 0 else 2 * n, Z)).astype(np.float32) for i in range(steps + 1)]
    results = list(
        pair.model.scales(
            torch.from_numpy(pair.context),
            torch.from_numpy(pair.mask),
            lambda scale, shape: torch.from_numpy(uniforms[scale]).view(shape),
            [torch.from_numpy(part) for part in noise],
            Settings(**settings),
            both_residuals=True,
        )
    )
    expected = pair.naive.generate(pair.context.astype(float), pair.mask, uniforms, noise, settings)
    assert len(results) == len(sides)
    for scale, result in enumerate(results):
        agree(result.logits, expected["logits"][scale], 5e-4, 1.0)
        np.testing.assert_array_equal(result.indices.numpy(), expected["indices"][scale])
        agree(result.f_hat, expected["f_hat"][scale], 2e-4, 0.05)  # smooth mode divides by temperatures
        if result.next is not None:
            latent = result.next.flatten(2).transpose(1, 2)  # (B, p * p, Z)
            agree(latent, expected["next"][scale], 1e-4, 0.05)
    assert result.condition is not None and result.residual is not None and result.strength is not None
    agree(result.condition, expected["condition"], 1e-4, 0.5)
    agree(result.residual, expected["residual"], 1e-4, 0.05)
    assert len({int(i) for r in results for i in r.indices.flatten()}) > 3
    image = pair.model.decode(result.f_hat)
    agree(image, expected["image"], 1e-4, 0.1)


@pytest.mark.long
def test_tokenizer(pair: Pair) -> None:
    side = pair.model.image_size
    images = np.random.default_rng(8).uniform(-1, 1, (2, 3, side, side)).astype(np.float32)
    with torch.no_grad():
        latent = pair.model.autoencoder.encode(torch.from_numpy(images))
        targets = pair.model.quantizer.encode(latent, phi_at_last=False)
        discrete = pair.model.quantizer.encode(latent, phi_at_last=True)
    for b, image in enumerate(images):
        expected = pair.naive.tokenizer.encode(image.astype(float))
        agree(latent[b], expected, 1e-4, 0.2)
        for found, phi_at_last in ((targets, False), (discrete, True)):
            indices, f_hat, rest = pair.naive.tokenizer.quantise(expected, phi_at_last)
            for own, other in zip(found[0], indices, strict=True):
                np.testing.assert_array_equal(own[b].numpy(), other)
            agree(found[1][b], f_hat, 1e-4, 0.1)
            agree(found[2][b], rest, 1e-4, 0.1)


@pytest.mark.long
@pytest.mark.parametrize("pair", [CASES[1], CASES[3]], ids=lambda case: case.name, indirect=True)
def test_every_weight_changes_some_output(pair: Pair) -> None:
    """Each tensor changes some output, so the comparisons above would notice if it were read wrongly."""
    before = outputs(pair)
    unnoticed = []
    with torch.no_grad():
        for name, weight in pair.model.state_dict().items():
            if name.startswith("autoencoder."):  # its biases in front of a GroupNorm of one channel do not matter
                continue
            original = weight.clone()
            weight += 0.1 * torch.linspace(0.5, 1.5, weight.numel()).view_as(weight)
            after = outputs(pair, only=name.split(".")[0])
            weight.copy_(original)
            change = max(float((before[key] - after[key]).abs().max()) for key in after)
            if change < 3e-3:
                unnoticed.append((name, change))
    assert unnoticed == []


def no_limit(naive: NaiveHART) -> None:
    for name in naive.w:
        if name.endswith("scale_mul_1H11"):
            naive.w[name] = np.log(100) - (naive.w[name] - np.log(100))


def sines_first(naive: NaiveHART) -> None:
    naive.w["lvl_embed.mlp.0.weight"] = np.roll(naive.w["lvl_embed.mlp.0.weight"], 128, 1)


def shift_before_scale(naive: NaiveHART) -> None:
    naive.modulation = lambda *given, right=naive.modulation: [right(*given)[i] for i in (0, 1, 4, 5, 2, 3)]


def visual_positions_from_zero(naive: NaiveHART) -> None:
    naive.angles = lambda s, at, right=naive.angles: right(s, at if s == 0 else at * 0)


def column_before_row(naive: NaiveHART) -> None:
    naive.turn = lambda x, angles, right=naive.turn: right(x, np.roll(angles, angles.shape[1] // 2, 1))


def own_ratio_at_last(naive: NaiveHART) -> None:
    naive.ratio = lambda s: s / (len(naive.sides) - 1)


MISREADINGS = [
    no_limit,
    sines_first,
    shift_before_scale,
    visual_positions_from_zero,
    column_before_row,
    own_ratio_at_last,
]


@pytest.mark.parametrize("misread", MISREADINGS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("pair", [CASES[1]], ids=lambda case: case.name, indirect=True)
def test_a_misreading_would_be_noticed(pair: Pair, misread: Callable[[NaiveHART], None]) -> None:
    tiny = pair.tiny
    wrong = NaiveHART(tiny.llm, tiny.llm_state, tiny.tokenizer, tiny.tokenizer_state)
    misread(wrong)
    sides, Z = tiny.llm["patch_nums"], tiny.tokenizer["z_channels"]
    latents = [np.random.default_rng(p).standard_normal((p * p, Z)) for p in sides[1:]]

    def guided(naive: NaiveHART) -> np.ndarray:
        t = 4.5 * naive.ratio(len(sides) - 1)
        context, nothing = pair.context[0].astype(float), np.zeros_like(pair.context[0])
        first = np.arange(len(nothing)) == 0
        seen = naive.logits(naive.hidden(context, pair.mask[0], latents), context)
        unseen = naive.logits(naive.hidden(nothing, first, latents), nothing)
        return (1 + t) * seen - t * unseen

    assert np.abs(guided(wrong) - guided(pair.naive)).max() > 0.05  # a hundred times the tolerance


def outputs(pair: Pair, only: str = "") -> dict[str, torch.Tensor]:
    """Outputs on which every tensor of transformer, residual MLP and quantizer has an effect"""
    model, random = pair.model, torch.Generator().manual_seed(9)
    Z, C, side = pair.tiny.tokenizer["z_channels"], pair.tiny.llm["embed_dim"], pair.model.patch_nums[-1]
    count = sum(side * side for side in model.patch_nums[1:])
    latents = torch.randn(len(pair.context), count, Z, generator=random)
    x, c = torch.randn(6, Z, generator=random), torch.randn(6, C, generator=random)
    found = {}
    with torch.no_grad():
        if only in ("", "transformer"):
            context, mask = torch.from_numpy(pair.context), torch.from_numpy(pair.mask)
            found["logits"] = model.teacher_forced(latents, context, mask)
            found["condition"] = model.transformer.decoder_norm(c)
        if only in ("", "residual"):
            found["residual"] = model.residual(x, torch.arange(6) * 100, c)
        if only in ("", "quantizer"):
            codes = torch.arange(side * side) % pair.tiny.tokenizer["vocab_size"]
            for scale, p in enumerate(model.patch_nums):
                found[f"h{scale}"] = model.quantizer.expand(model.quantizer.codebook(codes[: p * p])[None], scale)
    return found
