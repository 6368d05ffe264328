"""INT8 end to end: its pictures are matched to their prompts as often as those of FP32.

A stand-in for the trained evaluator of docs/evaluation.md, which is not shipped: a linear classifier of coarse shape
and colour, fitted on pictures that the FP32 bundle draws with other seeds. It knows seven prompts whose pictures the
shipped model draws alike with every seed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from hart_edge.engines.loading import load
from tests.bundle.corrupt_bundles import relist

PROMPTS = (
    "purple heart",
    "flag: Germany",
    "clock",
    "red square",
    "raised hand: light skin tone",
    "thumbs up: dark skin tone",
    "man: medium skin tone",
)
FITTED, HELD_OUT = range(100, 112), range(24)  # seeds
FEW = range(4)  # of the held-out seeds, enough to show damage
WITHIN = 0.03  # of the recall that FP32 reaches

Pictures = NDArray[np.uint8]  # (prompts, seeds, H, W, 3)


def draw(bundle: Path, seeds: range) -> Pictures:
    pipeline = load(bundle)
    return np.array([[np.asarray(pipeline.generate(prompt, seed=seed)) for seed in seeds] for prompt in PROMPTS])


def features(pictures: Pictures) -> NDArray[np.float64]:
    """Mean colours of 8 x 8 fields, and the distance from white of 16 x 16 fields: (prompts, seeds, F)."""
    x = pictures / 255
    prompts, seeds, side, *_ = x.shape
    colours = x.reshape(prompts, seeds, 8, side // 8, 8, side // 8, 3).mean((3, 5))
    ink = (1 - x.min(-1)).reshape(prompts, seeds, 16, side // 16, 16, side // 16).mean((3, 5))
    return np.concatenate([part.reshape(prompts, seeds, -1) for part in (colours, ink)], -1)


class Judge:
    """Fisher's linear discriminant, with a covariance that is regularised."""

    def __init__(self, pictures: Pictures) -> None:
        found = features(pictures)
        self.centres = found.mean(1)
        rest = (found - self.centres[:, None]).reshape(-1, found.shape[-1])
        covariance = rest.T @ rest / len(rest)
        apart = 0.1 * np.trace(covariance) / len(covariance)
        self.weight = np.linalg.inv(covariance + apart * np.eye(len(covariance)))

    def recall(self, pictures: Pictures) -> float:
        """R@1: the share of pictures that are nearest to their own prompt."""
        away = features(pictures)[:, :, None] - self.centres  # (prompts, seeds, prompts, F)
        distance = np.einsum("psqi,ij,psqj->psq", away, self.weight, away)
        return float((distance.argmin(-1) == np.arange(len(PROMPTS))[:, None]).mean())


def damage_decoder(bundle: Path, folder: Path) -> Path:
    """Copy a bundle, and add noise to the weights of the decoder's last convolution."""
    shutil.copytree(bundle, folder)
    name = "graphs/decoder.onnx"
    model = onnx.load(folder / name)
    (tensor,) = (each for each in model.graph.initializer if each.name == "decoder.conv_out.weight")
    value = numpy_helper.to_array(tensor)
    noise = 2 * value.std() * np.random.default_rng(0).standard_normal(value.shape)
    tensor.CopyFrom(numpy_helper.from_array((value + noise).astype(value.dtype), tensor.name))
    onnx.save_model(model, folder / name)
    relist(folder, name)
    return folder


@pytest.mark.slow
def test_int8_pictures_find_their_prompts(fp32_bundle: Path, int8_bundle: Path, tmp_path: Path) -> None:
    judge = Judge(draw(fp32_bundle, FITTED))
    exact = draw(fp32_bundle, HELD_OUT)
    reached = judge.recall(exact)
    assert reached >= 0.9  # chance level is 0.143
    assert judge.recall(np.roll(exact, 1, axis=0)) <= 0.1  # every picture has another's prompt
    damaged = draw(damage_decoder(fp32_bundle, tmp_path / "damaged"), FEW)
    assert judge.recall(damaged) <= judge.recall(exact[:, : len(FEW)]) - 0.3
    assert judge.recall(draw(int8_bundle, HELD_OUT)) >= (1 - WITHIN) * reached
