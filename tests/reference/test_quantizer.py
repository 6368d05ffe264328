"""Codes and latents: resize matrices, which phi belongs to which scale, nearest codes, encoding."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hart_edge.reference.config import TokenizerConfig
from hart_edge.reference.quantizer import (
    Quantizer,
    cubic_kernel,
    downsample_matrix,
    resize,
    to_map,
    to_tokens,
    upsample_matrix,
)

SIZES = [(1, 2), (1, 16), (2, 3), (3, 4), (4, 6), (5, 8), (6, 7), (7, 7), (10, 16), (13, 16), (9, 24), (24, 32)]
SIZES += [(27, 64), (48, 64), (2, 64), (3, 9)]
PUBLISHED = (
    (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
)


def make(patch_nums: tuple[int, ...] = (1, 2, 3, 5), share: int = 4, seed: int = 0, **changed: object) -> Quantizer:
    settings = {"vocab_size": 50, "z_channels": 8} | changed
    quantizer = Quantizer(TokenizerConfig(patch_nums, share_quant_resi=share, **settings))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in quantizer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return quantizer.requires_grad_(False)


@pytest.mark.long
@pytest.mark.parametrize(("side", "final"), SIZES)
def test_bicubic_matrix(side: int, final: int) -> None:
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    expected = F.interpolate(x, (final, final), mode="bicubic", align_corners=False)
    torch.testing.assert_close(resize(x, upsample_matrix(side, final)), expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize(("side", "final"), SIZES)
def test_area_matrix(side: int, final: int) -> None:
    x = torch.randn(2, 3, final, final, generator=torch.Generator().manual_seed(side))
    expected = F.interpolate(x, (side, side), mode="area")
    torch.testing.assert_close(resize(x, downsample_matrix(side, final)), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("side", "final"), SIZES)
def test_rows_sum_to_one(side: int, final: int) -> None:
    for matrix, shape in (
        (upsample_matrix(side, final), (final, side)),
        (downsample_matrix(side, final), (side, final)),
    ):
        assert matrix.shape == shape
        assert matrix.dtype == torch.float32
        torch.testing.assert_close(matrix.double().sum(1), torch.ones(shape[0], dtype=torch.float64), atol=1e-6, rtol=0)


def test_cubic_kernel() -> None:
    assert [cubic_kernel(d) for d in (0, 1, 2)] == [1, 0, 0]
    assert cubic_kernel(0.5) == pytest.approx(0.59375)  # a = -0.75
    assert cubic_kernel(1.5) == pytest.approx(-0.09375)


@pytest.mark.parametrize("patch_nums", [*PUBLISHED, (1, 2), (1, 2, 3), (1, 2, 3, 5, 7)])
@pytest.mark.parametrize("share", [0, 1, 2, 4, 5])
def test_phi_index_is_the_nearest_tick(patch_nums: tuple[int, ...], share: int) -> None:
    quantizer, last = make(patch_nums, share), len(patch_nums) - 1
    count = share or last + 1
    assert len(quantizer.phi) == count
    first = Fraction(1, 12) if count == 4 else Fraction(1, 2 * count)
    step = (1 - 2 * first) / max(count - 1, 1)
    for scale in range(last + 1):
        distances = [abs(first + k * step - Fraction(scale, last)) for k in range(count)]
        nearest = [k for k, distance in enumerate(distances) if distance == min(distances)]
        assert quantizer.phi_index(scale) in nearest  # two phi where a scale lies exactly between ticks
        if count == last + 1:
            assert quantizer.phi_index(scale) in (scale - 1, scale, scale + 1)


def test_phi_index_of_the_published_models() -> None:
    found = [[make(scales).phi_index(s) for s in range(len(scales))] for scales in PUBLISHED]
    # Of ten scales, 2 and 7 lie exactly between two ticks: the rounding of numpy's linspace decides.
    assert found[0] == found[1] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert found[2] == [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]


@pytest.mark.parametrize("share", [0, 1, 4])
def test_phi_kernels_equal_expand(share: int) -> None:
    quantizer = make(share=share)
    weight, bias = quantizer.phi_kernels()
    codes = torch.randn(2, 9, 8, generator=torch.Generator().manual_seed(1))
    own = quantizer.phi_index(2)
    plain = F.interpolate(to_map(codes, 3), (5, 5), mode="bicubic")
    expected = 0.5 * plain + 0.5 * F.conv2d(plain, quantizer.phi[own].weight, quantizer.phi[own].bias, padding=1)
    torch.testing.assert_close(quantizer.expand(codes, 2), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(F.conv2d(plain, weight[own], bias[own], padding=1), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(quantizer.expand(codes, 2, with_phi=False), plain, atol=1e-5, rtol=0)


def test_phi_of_a_strong_ratio_and_of_none() -> None:
    codes = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(2))
    plain = F.interpolate(to_map(codes, 2), (5, 5), mode="bicubic")
    whole = make(quant_resi=-1.0)  # its absolute value is the ratio: no identity part is left
    phi = whole.phi[whole.phi_index(1)]
    torch.testing.assert_close(whole.expand(codes, 1), phi(plain), atol=1e-5, rtol=0)
    without = make(quant_resi=0.0)
    assert len(without.phi) == 0
    torch.testing.assert_close(without.expand(codes, 1), plain, atol=1e-5, rtol=0)
    weight, bias = without.phi_kernels()
    assert torch.equal(F.conv2d(plain, weight[0], bias[0], padding=1), plain)


def test_nearest() -> None:
    quantizer = make()
    codebook = quantizer.codebook.weight
    tokens = torch.randn(3, 40, 8, generator=torch.Generator().manual_seed(3))
    distance = (tokens[:, :, None].double() - codebook.double()).square().sum(-1)
    assert torch.equal(quantizer.nearest(tokens), distance.argmin(-1))
    assert torch.equal(quantizer.nearest(codebook[None]), torch.arange(50)[None])  # a code is nearest to itself


def test_maps_are_row_major() -> None:
    tokens = torch.arange(12.0).view(1, 4, 3)
    latent = to_map(tokens, 2)
    assert latent.shape == (1, 3, 2, 2)
    assert latent[0, :, 0, 1].tolist() == tokens[0, 1].tolist()
    assert torch.equal(to_tokens(latent), tokens)


def test_encoding_subtracts_what_each_scale_adds() -> None:
    quantizer = make()
    latent = torch.randn(2, 8, 5, 5, generator=torch.Generator().manual_seed(4))
    indices, f_hat, rest = quantizer.encode(latent, phi_at_last=False)
    assert [tuple(part.shape) for part in indices] == [(2, 1), (2, 4), (2, 9), (2, 25)]
    # The target of the residual: what the codes of the last scale leave
    last = quantizer.codebook(indices[-1])
    torch.testing.assert_close(to_map(rest - last, 5) + f_hat, latent, atol=1e-5, rtol=0)
    assert torch.equal(indices[-1], quantizer.nearest(rest))
    again, f_discrete, same_rest = quantizer.encode(latent, phi_at_last=True)
    assert all(torch.equal(a, b) for a, b in zip(indices, again, strict=True))
    assert torch.equal(rest, same_rest)
    difference = quantizer.expand(last, 3) - to_map(last, 5)
    torch.testing.assert_close(f_discrete - f_hat, difference, atol=1e-5, rtol=0)
    assert np.abs(difference.numpy()).max() > 0.1
