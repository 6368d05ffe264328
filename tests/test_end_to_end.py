"""The whole bundle against the reference: one prompt and seed, two loops, the same picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hart_edge.bundle.settings import Settings, merged
from hart_edge.engines.loading import load
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.noise import residual_normal, token_uniform
from hart_edge.reference.presets import SHIPPED_MODEL
from hart_edge.reference.text_model import load_text_model
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer


@pytest.mark.parametrize(
    ("prompt", "seed", "settings"),
    [
        ("man astronaut", 7, Settings(top_p=1.0)),
        ("grinning face", 2**63 + 5, Settings(cfg_scale=2.0, top_k=50, top_p=0.9, smooth=False)),
    ],
)
def test_fp32_bundle_draws_what_the_reference_draws(
    fp32_bundle: Path, prompt: str, seed: int, settings: Settings
) -> None:
    checkpoint = load_checkpoint(SHIPPED_MODEL)
    model = checkpoint.model
    text_model, tokenizer = load_text_model(
        SHIPPED_MODEL / "text_model", model.config.context_token, PromptTokenizer.padding_with
    )
    with torch.no_grad():
        context, mask = text_model(torch.from_numpy(tokenizer.encode(prompt)))
    scales, tokens = len(model.patch_nums), model.patch_nums[-1] ** 2
    steps = model.config.num_sampling_steps + 1
    noise = residual_normal([seed], scales - 1, steps, tokens, model.tokenizer_config.z_channels)[0]

    def uniform(scale: int, shape: tuple[int, int, int]) -> torch.Tensor:
        return token_uniform([seed], scale, *shape[1:])

    results = list(model.scales(context, mask, uniform, list(noise), merged(checkpoint.sampling, settings)))
    expected = model.decode(results[-1].f_hat)[0].permute(1, 2, 0).numpy() * 255
    found = load(fp32_bundle).generate(
        prompt,
        seed=seed,
        **settings,
    )
    difference = np.abs(np.asarray(found, np.float64) - expected)
    # Rounding to 8 bits costs 0.25 on average. Two float32 libraries differ by 1e-7 in the first scale's logits, and
    # every scale multiplies that by about seven, because q and k are normalised and scaled by up to 100. How far a
    # pixel ends up depends on the CPU's kernels: 6 steps of 255 at most with AVX512, 8 with AVX2.
    assert difference.mean() <= 0.35
    assert difference.max() <= 10
