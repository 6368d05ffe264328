"""One pass over the tokens of all scales, each scale seeing itself and the earlier ones: teacher forcing.

In: codes, and the context of each picture. Out: hidden states. The same arithmetic as HART.teacher_forced, bit for bit
where no token is dropped; for_autocast() makes it faster in mixed precision.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hart_edge.reference.quantizer import Quantizer
from hart_edge.reference.transformer import Transformer, context_rotary, scale_coordinates, visual_rotary


@torch.no_grad()
def teacher_inputs(quantizer: Quantizer, indices: list[Tensor]) -> Tensor:
    """What the loop would feed each scale after the first, had it chosen these codes: (B, sum of p_s^2, s >= 1, Z).

    indices: per scale (B, p_s * p_s); those of the last scale are not looked at.
    """
    f_hat, inputs = torch.zeros(()), []
    for scale, chosen in enumerate(indices[:-1]):
        f_hat = f_hat + quantizer.expand(quantizer.codebook(chosen), scale)
        inputs.append(quantizer.reduce(f_hat, scale + 1))
    return torch.cat(inputs, 1)


def drop_tokens(inputs: Tensor, kept: Tensor, last: int) -> Tensor:
    """Of the `last` tokens at the end of (B, n, Z) those at the positions kept (B, K): (B, n - last + K, Z)"""
    earlier, end = inputs.split([inputs.shape[1] - last, last], 1)
    return torch.cat([earlier, end.take_along_dim(kept[..., None], 1)], 1)


def hidden_states(
    model: Transformer, latents: Tensor, context: Tensor, mask: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor]:
    """The hidden state behind every code, and what the head is modulated by.

    latents: (B, N - 1, Z), of the last scale only the tokens at the positions kept (B, K), ascending; context: (B, T,
    context_dim); mask: (B, T) bool. Returns (B, N, C), the first from the last context position, and (B, 2, C).
    """
    config = model.config
    position_ids = mask.long().cumsum(1) - 1
    last_position = position_ids[:, -1:].float()
    tokens = model.embed_context(context)
    lengths = [context.shape[1], *(side * side for side in config.patch_nums[1:-1]), kept.shape[1]]
    angles = [context_rotary(position_ids, config.head_dim)]
    for side in config.patch_nums[1:]:
        coordinates = scale_coordinates(side, config.patch_nums[-1]).to(latents.device)
        angles.append(visual_rotary(coordinates, last_position, config.head_dim))
    cos, sin = (torch.cat(part, 1) for part in zip(*angles, strict=True))
    last = config.patch_nums[-1] ** 2
    cos, sin = drop_tokens(cos, kept, last), drop_tokens(sin, kept, last)
    level = torch.cat([model.level(scale).expand(n, -1) for scale, n in enumerate(lengths)])
    x = torch.cat([tokens, model.word_embed(latents)], 1) + level
    order = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths)).to(latents.device)
    hidden, _ = model(x, cos, sin, model.modulation(tokens, mask), mask=order[:, None] >= order)
    return hidden[:, context.shape[1] - 1 :], model.head_modulation(tokens)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """transformer.attend under autocast. Rotation leaves q and k in float32; v has autocast's precision."""
    if v.device.type == "cpu" and torch.compiler.is_compiling():
        return _attend_compiled(q, k, v, mask)
    # On CPUs the kernel takes half as long again in bfloat16 as in float32, and five times as long without AVX-512.
    dtype = torch.float32 if v.device.type == "cpu" else v.dtype
    with torch.autocast(v.device.type, enabled=False):
        heads = F.scaled_dot_product_attention(q.to(dtype), k.to(dtype), v.to(dtype), attn_mask=mask, scale=1.0)
    return heads.to(v.dtype)


def _attend_compiled(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """attend() written out: where torch.compile fuses the softmax, two products in v's precision beat the kernel."""
    with torch.autocast(v.device.type, enabled=False):
        scores = (q.to(v.dtype) @ k.to(v.dtype).transpose(-1, -2)).float()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(-1).to(v.dtype) @ v


def for_autocast(model: Transformer) -> None:
    """Let every block attend in the precision in which that is fastest, whatever autocast would choose."""
    for block in model.blocks:
        block.attn.attend = attend
