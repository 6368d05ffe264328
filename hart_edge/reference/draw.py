"""Seeds in, a latent out: the reference with the runtime's own noise."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from hart_edge.reference.hart import HART, SampleSettings
from hart_edge.reference.noise import residual_normal, token_uniform


def draw_latent(
    model: HART, context: Tensor, mask: Tensor, seeds: Sequence[int], settings: SampleSettings | None = None
) -> Tensor:
    """f_hat (B, Z, P, P) for the decoder. context: (B, T, D) float32; mask: (B, T) bool; seeds: B; settings: None for
    the published ones."""
    last, vocab_size = len(model.patch_nums) - 1, model.tokenizer_config.vocab_size
    steps, tokens, z = model.config.num_sampling_steps + 1, model.patch_nums[-1] ** 2, model.tokenizer_config.z_channels
    noise = residual_normal(seeds, last, steps, tokens, z)  # (B, N + 1, n, Z)

    def uniform(scale: int, shape: tuple[int, int, int]) -> Tensor:
        return token_uniform(seeds, scale, shape[1], vocab_size)

    residual_noise = list(noise.transpose(0, 1).flatten(1, 2))
    *_, result = model.scales(context, mask, uniform, residual_noise, settings or SampleSettings())
    return result.f_hat
