"""Pictures are encoded into codes once: the codes themselves, and when cached codes are used again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

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
from tests.training.tokenizer import tiny_tokenizer
from tests.training.transformer import tiny_transformer

IMAGES = tiny_tokenizer.pictures(11)


def encode(model: Tokenizer, folder: Path, images: np.ndarray = IMAGES, **more: Any) -> Codes:
    return codes_of(Accelerator(cpu=True), model.autoencoder, model.quantizer, images, folder, **more)


def counted(model: Tokenizer, sizes: list[int]) -> Tokenizer:
    """The model, changed to append to `sizes` how many pictures each call encodes."""
    model.autoencoder.quant_conv.register_forward_hook(lambda module, given, out: sizes.append(len(out)))
    return model


def test_codes_equal_those_of_the_tokenizer(tmp_path: Path) -> None:
    model = tiny_transformer.tokenizer()
    found = encode(model, tmp_path)
    latent = model.autoencoder.encode(to_range(IMAGES))
    indices, _, rest = model.quantizer.encode(latent, phi_at_last=False)
    assert (found.indices.dtype, found.rest.dtype, len(found)) == (np.uint16, np.float16, 11)
    assert found.indices.tolist() == torch.cat(indices, 1).tolist()
    assert len(np.unique(found.indices)) > 8
    np.testing.assert_allclose(found.rest, rest.numpy(), atol=2e-3 * float(rest.abs().max()))


def test_codes_and_residual_add_up_to_the_latent(tmp_path: Path) -> None:
    """Codes and residual of the last scale, added to the result of the earlier scales, are the latent."""
    model = tiny_transformer.tokenizer()
    lesson = lesson_of(model.quantizer, encode(model, tmp_path), np.array([3, 0]))
    latent = model.autoencoder.encode(to_range(IMAGES[[3, 0]]))
    whole = lesson.inputs + lesson.codes + RESIDUAL_SCALE * lesson.residual  # two scales: the input is f_hat
    torch.testing.assert_close(whole, latent.flatten(2).transpose(1, 2), atol=2e-3 * float(latent.abs().max()), rtol=0)
    assert lesson.indices.shape == (2, 5) and lesson.inputs.shape == lesson.codes.shape == (2, 4, 4)


def test_only_some_pictures_get_mirror_images(tmp_path: Path) -> None:
    model, some = tiny_transformer.tokenizer(), np.array([7, 2, 5])
    found = encode(model, tmp_path, mirrored=some)
    expected = encode(model, tmp_path, np.ascontiguousarray(IMAGES[some][:, :, ::-1]))
    assert found.indices.tolist() == expected.indices.tolist()
    assert found.indices.tolist() != encode(model, tmp_path).indices[some].tolist()


def test_codes_are_cached(tmp_path: Path) -> None:
    encoded: list[int] = []
    model = counted(tiny_transformer.tokenizer(), encoded)
    first, second = encode(model, tmp_path), encode(model, tmp_path)
    assert encoded == [8, 3]
    assert np.array_equal(first.indices, second.indices) and np.array_equal(first.rest, second.rest)
    encode(counted(tiny_transformer.tokenizer(seed=1), encoded), tmp_path)  # another tokenizer
    encode(model, tmp_path, IMAGES[::-1])  # other pictures
    assert encoded == [8, 3] * 3
    for file in (tmp_path / ".hart-edge").iterdir():
        file.write_bytes(file.read_bytes()[:200])
    assert np.array_equal(encode(model, tmp_path).rest, first.rest)
    assert encoded == [8, 3] * 4


def test_a_folder_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".hart-edge").write_text("in the way", "utf-8")
    with caplog.at_level(logging.WARNING):
        assert len(encode(tiny_transformer.tokenizer(), tmp_path)) == 11
    assert "so the pictures are encoded at every start" in caplog.text


@pytest.mark.long
def test_pictures_of_another_size(tmp_path: Path) -> None:
    model = tiny_transformer.tokenizer()
    quantizer = Quantizer(model.config, (1, 2, 3))
    message = r"expected pictures of 48 x 48 pixels, 16 times the last of patch_nums, found 32 x 32; change transformer"
    with pytest.raises(TrainingError, match=message):
        codes_of(Accelerator(cpu=True), model.autoencoder, quantizer, IMAGES, tmp_path)


@pytest.mark.long
def test_tokenizers_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match="tokenizer: expected at most 65536 codes, found 65537; train a smaller one"
    ):
        encode(tiny_transformer.tokenizer(vocab_size=65537), tmp_path)
    broken = tiny_transformer.tokenizer()
    broken.autoencoder.quant_conv.weight.mul_(torch.inf)
    with pytest.raises(
        TrainingError, match="tokenizer: expected latents within float16, found one of nan; train it fur"
    ):
        encode(broken, tmp_path)


def test_progress_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        encode(tiny_transformer.tokenizer(), tmp_path, log_seconds=0.0)
    assert [record.getMessage() for record in caplog.records][-1] == "11 of 11 pictures encoded, 0 s left"
