"""Pipeline.reconstruct(): the encoder that a bundle carries, by both paths, against the reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hart_edge.engines.loading import load
from hart_edge.errors import BundleError
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.runtime.pictures import to_square
from tests.cli.command_line import Run
from tests.conftest import GOLDEN
from tests.runtime.words_bundle import make_words_bundle


def test_both_paths_are_the_references(plain_bundle: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    found = load(plain_bundle).reconstruct(Image.fromarray(pixels))
    assert np.array_equal(np.asarray(found.given), pixels)
    model = load_checkpoint(GOLDEN / "plain").model
    with torch.no_grad():
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
        latent = model.autoencoder.encode(image)
        indices, f_hat, _ = model.quantizer.encode(latent, phi_at_last=True)
        for back, decoded in ((found.continuous, latent), (found.discrete, f_hat)):
            expected = (model.decode(decoded)[0].permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)
            assert np.abs(np.asarray(back, int) - expected).max() <= 1
    assert np.array_equal(found.codes, torch.cat(indices, 1)[0].numpy())


def test_any_picture_becomes_a_square_on_white() -> None:
    wide = Image.new("RGB", (60, 20), "red")
    wide.paste("blue", (20, 0, 40, 20))
    assert to_square(wide, 16).getcolors() == [(256, (0, 0, 255))]
    assert to_square(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), 16).getcolors() == [(256, (255, 255, 255))]
    for mode in ("L", "P", "1", "CMYK", "LA"):
        assert to_square(Image.new(mode, (5, 9)), 16).mode == "RGB"


def test_a_bundle_without_an_encoder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"^bundle 'tiny-2' has no encoder, so it reads no picture; build it again$"):
        load(make_words_bundle(tmp_path / "words")).reconstruct(Image.new("RGB", (32, 32)))


def test_the_command(run: Run, plain_bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), "orange").save(tmp_path / "orange.jpg")
    status, out, err = run("reconstruct", "orange.jpg", "--bundle", plain_bundle)
    assert (status, err) == (0, "") and out.startswith("reconstruction.png: orange.jpg as encoded, from its latent (")
    assert Image.open(tmp_path / "reconstruction.png").size == (3 * 112 + 8, 112)
    told = json.loads(run("reconstruct", "orange.jpg", "--bundle", plain_bundle, "--json")[1])
    assert len(told["codes"]) == 1 + 4 + 9 + 25 + 49 and told["size"] == [112, 112]
    (tmp_path / "text.png").write_text("no picture")
    status, out, err = run("reconstruct", "text.png", "--bundle", plain_bundle)
    assert (status, out) == (2, "") and "text.png: expected a picture file, found none that can be read (" in err
    status, out, err = run("reconstruct", "missing.png", "--bundle", plain_bundle)
    assert (status, out) == (2, "") and err.endswith("missing.png: no such file; expected a picture file\n")
