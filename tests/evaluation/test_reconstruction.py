"""Figures of reconstruction: known errors, both paths, the share of codes in use, and the command that prints them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hart_edge.evaluation.reconstruction import main, measure, psnr_and_ssim, spread, to_bytes, to_range
from hart_edge.training.tokenizer.recipe import publish_tokenizer
from tests.training.tokenizer.tiny_tokenizer import CONFIG, pictures, task, write_data


def test_pictures_survive_the_change_of_range() -> None:
    images = pictures(3)
    images[0, 0, :, 0] = range(32)
    values = to_range(images)
    assert values.min() >= -1 and values.max() == 1
    assert np.array_equal(to_bytes(values).permute(0, 2, 3, 1).numpy(), images)
    assert to_bytes(torch.tensor([[[[-3.0, 1.5, 0.0]]]])).flatten().tolist() == [0, 255, 128]


def test_psnr_and_ssim_of_known_errors() -> None:
    original = torch.full((2, 3, 32, 32), 100, dtype=torch.uint8)
    found = original.clone()
    found[1] = 110
    psnr, ssim = psnr_and_ssim(found, original)
    assert psnr == pytest.approx([100.0, 20 * math.log10(255 / 10)])
    a, b = 100 / 255, 110 / 255
    assert ssim == pytest.approx([1.0, (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)], abs=5e-4)  # in float32


def test_both_paths_are_measured() -> None:
    model, images = task().model.eval(), pictures(11)
    found = measure(model.autoencoder, model.quantizer, images)
    with torch.no_grad():
        latent = model.autoencoder.encode(to_range(images))
        indices, f_hat, _ = model.quantizer.encode(latent, phi_at_last=True)
        for path, decoded in ((found.continuous, latent), (found.discrete, f_hat)):
            error = to_bytes(model.autoencoder.decode(decoded)).float() - to_bytes(to_range(images)).float()
            psnr = 20 * math.log10(255) - 10 * error.square().mean((1, 2, 3)).log10()
            assert path.psnr == pytest.approx(psnr.mean().item(), abs=1e-3)
    assert found.codes_used == len(torch.cat([each.flatten() for each in indices]).unique())
    assert (found.codes, found.pictures) == (16, 11)


def test_a_spread_reaches_both_ends() -> None:
    assert spread(11, 3).tolist() == [0, 5, 10]
    assert spread(2, 5).tolist() == [0, 1]


def test_the_command_prints_both_paths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = task().model.eval()
    publish_tokenizer(tmp_path, CONFIG, model, {})
    data = write_data(tmp_path / "data")
    assert main([str(tmp_path / "tokenizer"), str(data / "validation")]) == 0
    found = measure(model.autoencoder, model.quantizer, pictures(4, seed=1))
    assert capsys.readouterr().out == (
        f"4 pictures of {data / 'validation'}, {found.codes_used} of 16 codes in use\n"
        f"continuous  PSNR {found.continuous.psnr:.2f} dB  SSIM {found.continuous.ssim:.4f}\n"
        f"discrete    PSNR {found.discrete.psnr:.2f} dB  SSIM {found.discrete.ssim:.4f}\n"
    )
    assert main([str(tmp_path / "nowhere"), str(data / "validation")]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'nowhere' / 'config.json'}: missing")
