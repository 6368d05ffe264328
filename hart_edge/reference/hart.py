"""HART whole: context in, image out, scale by scale; and the teacher-forced pass that training must equal.

This loop is the reference that every exported graph is held against. It is deliberately plain: the fast loop is the
runtime's. Source: HART section 3; arithmetic as the golden records pin it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hart_edge.bundle.settings import Settings, over
from hart_edge.reference.autoencoder import Autoencoder
from hart_edge.reference.config import TokenizerConfig, TransformerConfig
from hart_edge.reference.dial import dial_of
from hart_edge.reference.quantizer import Quantizer, to_map
from hart_edge.reference.residual import ResidualMLP
from hart_edge.reference.sampling import choose, guide, published_sampling
from hart_edge.reference.selection import change, order_of, rows_at, sources_of, spread
from hart_edge.reference.transformer import Cache, Transformer, context_rotary, scale_coordinates, visual_rotary

# (scale, shape) -> uniform numbers in (0, 1) for the token choice; shape (B, n, V)
UniformSource = Callable[[int, tuple[int, ...]], Tensor]


@dataclass(frozen=True)
class ScaleResult:
    """What one scale computed. n tokens, of which a speed may leave some out; B images; a field that a scale has not
    is None.

    logits (B, n, V) guided; indices (B, n); f_hat (B, Z, P, P) after this scale; next (B, Z, p, p), the next scale's
    input; condition (2B * n, C) and residual (2B * n, Z) at the last scale, conditional branch first.
    """

    scale: int
    logits: Tensor
    indices: Tensor
    f_hat: Tensor
    next: Tensor | None = None
    condition: Tensor | None = None
    strength: float | None = None
    residual: Tensor | None = None


class HART(nn.Module):
    """The four parts of a checkpoint but the text model, with the loop that connects them."""

    def __init__(self, transformer: TransformerConfig, tokenizer: TokenizerConfig) -> None:
        super().__init__()
        self.config, self.tokenizer_config = transformer, tokenizer
        self.patch_nums = transformer.patch_nums
        self.transformer = Transformer(transformer, tokenizer.vocab_size, tokenizer.z_channels)
        self.residual = ResidualMLP(transformer, tokenizer.z_channels)
        self.quantizer = Quantizer(tokenizer, transformer.patch_nums)
        self.autoencoder = Autoencoder(tokenizer)

    @property
    def image_size(self) -> int:
        return 16 * self.patch_nums[-1]

    def rotary(self, scale: int, last_position: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines of a visual scale's tokens: (B, n, d); last_position: (B, 1)"""
        coordinates = scale_coordinates(self.patch_nums[scale], self.patch_nums[-1])
        return visual_rotary(coordinates, last_position, self.config.head_dim)

    @torch.no_grad()
    def scales(
        self,
        context: Tensor,
        context_mask: Tensor,
        uniform: UniformSource,
        residual_noise: list[Tensor],
        settings: Settings,
        *,
        both_residuals: bool = False,
    ) -> Iterator[ScaleResult]:
        """Generate scale by scale.

        context: (B, T, context_dim) float32; context_mask: (B, T) bool; residual_noise[0..N]: (B * P * P, Z) each
        (with both_residuals, of the speed exact alone, (2 * B * P * P, Z) from 1 on); settings: the others are the
        published ones. Yields a ScaleResult per scale; the last one's f_hat is what the decoder turns into the image.
        """
        model, count = self.transformer, len(self.patch_nums)
        published = published_sampling(count, self.tokenizer_config.vocab_size)
        sampling = over(published, settings)
        context, mask = double_context(context, context_mask)
        position_ids = mask.cumsum(1) - 1
        last_position = position_ids[:, -1:].float()  # (2B, 1)
        tokens = model.embed_context(context)  # (2B, T, C)
        modulation, head_modulation = model.modulation(tokens, mask), model.head_modulation(tokens)
        x, (cos, sin) = tokens + model.level(0), context_rotary(position_ids, self.config.head_dim)
        dial = dial_of(sampling.speed, self.patch_nums, self.config.num_sampling_steps)
        batch, final = context_mask.shape[0], self.patch_nums[-1]
        f_hat = tokens.new_zeros(batch, self.tokenizer_config.z_channels, final, final)
        cache: Cache | None = None
        sources: Tensor | None = None  # of the rows that are computed, where those are not all
        for scale, side in enumerate(self.patch_nums):
            if scale == dial.guided:  # from here on the conditional branch alone
                x, cos, sin, last_position, head_modulation = (
                    part[:batch] for part in (x, cos, sin, last_position, head_modulation)
                )
                modulation = None if modulation is None else modulation[:batch]
                cache = [(key[:batch], value[:batch]) for key, value in cache or ()]
            hidden, cache = model(x, cos, sin, modulation, cache)
            if scale == 0:
                hidden = hidden[:, -1:]  # the one code is predicted from the last context position
            strength = sampling.cfg_scale * sampling.guidance_ratio[scale] if scale < dial.guided else 0.0
            branches = model.logits(hidden, head_modulation)  # (2B, n, V), or (B, n, V)
            logits = guide(branches[:batch], branches[-batch:], strength)
            indices, codes, latent = choose(
                logits,
                uniform(scale, tuple(logits.shape)),
                self.quantizer.codebook.weight,
                ratio=torch.tensor([sampling.guidance_ratio[scale]]),
                temperature=torch.tensor([sampling.temperature[scale]]),
                top_k=torch.tensor([sampling.top_k[scale]]),
                top_p=torch.tensor([sampling.top_p]),
                smooth=torch.tensor([sampling.smooth]),
                candidates=max(*published.top_k, *sampling.top_k),
            )
            if scale == count - 1:
                embedded = model.word_embed(codes).repeat(len(hidden) // batch, 1, 1)
                condition = model.decoder_norm(hidden + embedded).flatten(0, 1)
                noise = residual_noise[: dial.steps + 1]
                if sources is not None:
                    noise = [draw.unflatten(0, (batch, -1))[:, : dial.kept[scale]].flatten(0, 1) for draw in noise]
                residual = self.residual.sample(condition, noise, strength, both=both_residuals)
                latent = latent + residual[: batch * dial.kept[scale]].view_as(latent)
                f_hat = f_hat + to_map(latent if sources is None else spread(latent, sources), side)
                yield ScaleResult(scale, logits, indices, f_hat, None, condition, strength, residual)
                return
            before = f_hat
            f_hat = f_hat + self.quantizer.expand(latent if sources is None else spread(latent, sources), scale)
            following = self.quantizer.reduce(f_hat, scale + 1)
            yield ScaleResult(scale, logits, indices, f_hat, to_map(following, self.patch_nums[scale + 1]))
            x = model.word_embed(following).repeat(len(last_position) // batch, 1, 1) + model.level(scale + 1)
            cos, sin = self.rotary(scale + 1, last_position)
            kept = dial.kept[scale + 1]
            if kept < self.patch_nums[scale + 1] ** 2:
                order = order_of(change(following, self.quantizer.reduce(before, scale + 1)))
                x, cos, sin = (rows_at(part, order[:, :kept]) for part in (x, cos, sin))
                sources = sources_of(order, kept)

    @torch.no_grad()
    def decode(self, f_hat: Tensor) -> Tensor:
        """(B, Z, P, P) -> image (B, 3, 16P, 16P) in [0, 1]"""
        return (self.autoencoder.decode(f_hat).clamp(-1, 1) + 1) / 2

    def teacher_forced(self, latents: Tensor, context: Tensor, context_mask: Tensor) -> Tensor:
        """Logits of every scale's tokens in one pass, each scale seeing only itself and the earlier ones.

        latents: (B, sum of p_s^2 for s >= 1, Z), each scale's true input; context: (B, T, context_dim); context_mask:
        (B, T) bool. Returns (B, sum of p_s^2, V); the first token is predicted from the last context position.
        """
        model = self.transformer
        position_ids = context_mask.long().cumsum(1) - 1
        last_position = position_ids[:, -1:].float()
        tokens = model.embed_context(context)
        lengths = [context.shape[1], *(side * side for side in self.patch_nums[1:])]
        level = torch.cat([model.level(s).expand(n, -1) for s, n in enumerate(lengths)])
        x = torch.cat([tokens, model.word_embed(latents)], 1) + level
        angles = [context_rotary(position_ids, self.config.head_dim)]
        angles += [self.rotary(scale, last_position) for scale in range(1, len(lengths))]
        cos, sin = (torch.cat(part, 1) for part in zip(*angles, strict=True))
        order = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        hidden, _ = model(x, cos, sin, model.modulation(tokens, context_mask), mask=order[:, None] >= order)
        return model.logits(hidden[:, context.shape[1] - 1 :], model.head_modulation(tokens))


def double_context(context: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Append the unconditional branch: zero context, mask only at position 0. (B, ...) -> (2B, ...)

    Its position ids must be 0 throughout, which cumsum(mask) - 1 gives.
    """
    first = (torch.arange(mask.shape[1], device=mask.device) == 0).expand_as(mask)
    return torch.cat([context, torch.zeros_like(context)]), torch.cat([mask, first]).long()
