"""Multiply-accumulates of a HART, per component and scale, counted on the reference without computing anything.

In: the two configurations. Out: MacCounts. The reference runs on torch's meta device, where tensors have shapes and no
values, under torch's own operator counter: so what is counted is what the reference does, for one image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hart_edge.reference.config import TokenizerConfig, TransformerConfig
from hart_edge.reference.hart import HART


@dataclass(frozen=True)
class MacCount:
    """One component at one scale (None: not within a scale).

    layers: linear and convolution layers, resize matrices; attention: products of queries with keys and of weights
    with values; guided: whether guidance computes it twice, once for each branch. Counts are of one branch.
    """

    component: str
    scale: int | None
    layers: int
    attention: int
    guided: bool


def count_macs(transformer: TransformerConfig, tokenizer: TokenizerConfig) -> list[MacCount]:
    """Every component of a picture, in the order of the loop, and the encoder last. No text model is counted."""
    with torch.device("meta"), torch.no_grad():
        return list(_count(HART(transformer, tokenizer)))


def _count(model: HART) -> Iterator[MacCount]:
    config, codes = model.config, model.tokenizer_config
    sides, final, z, dim = model.patch_nums, model.patch_nums[-1], codes.z_channels, config.embed_dim
    blocks = model.transformer
    block = blocks.blocks[0]

    def prepare() -> None:
        tokens = blocks.embed_context(torch.empty(1, config.context_token, config.context_dim))
        blocks.modulation(tokens, torch.ones(1, config.context_token, dtype=torch.bool))
        blocks.head_modulation(tokens)

    yield _measure("context", None, prepare, guided=True)
    cached = 0
    for scale, side in enumerate(sides):
        predicted = side * side
        tokens = config.context_token if scale == 0 else predicted
        if scale > 0:
            embed = torch.empty(1, tokens, z)
            yield _measure("embed", scale, partial(blocks.word_embed, embed), guided=False)  # both branches share it
        angles = torch.empty(1, tokens, config.head_dim)
        past = (torch.empty(1, config.num_heads, cached, config.head_dim),) * 2
        x = torch.empty(1, tokens, dim)

        def transform(x: Tensor = x, angles: Tensor = angles, past: tuple[Tensor, Tensor] = past) -> None:
            block(x, None, lambda y: block.attn(y, angles, angles, past, None))

        yield _measure("transformer", scale, transform, guided=True, times=config.depth)  # all blocks are alike
        cached += tokens
        hidden = torch.empty(1, predicted, dim)
        yield _measure("tokens", scale, partial(blocks.logits, hidden, torch.empty(1, 2, dim)), guided=True)
        if scale < len(sides) - 1:
            latent = torch.empty(1, predicted, z)

            def update(latent: Tensor = latent, scale: int = scale) -> None:
                model.quantizer.reduce(model.quantizer.expand(latent, scale), scale + 1)

            yield _measure("latent", scale, update, guided=False)
    count, width = final * final, config.diff_width

    def condition() -> None:
        blocks.word_embed(torch.empty(count, z))
        model.residual.cond_embed(torch.empty(count, dim))

    def denoise() -> None:
        model.residual.denoise(torch.empty(count, z), torch.empty(count, width))

    once = _measure("residual", len(sides) - 1, condition, guided=True)
    steps = _measure("residual", len(sides) - 1, denoise, guided=True, times=config.num_sampling_steps)
    yield replace(once, layers=once.layers + steps.layers)
    latent = torch.empty(1, z, final, final)
    yield _measure("decoder", None, lambda: model.autoencoder.decode(latent), guided=False)
    image = torch.empty(1, 3, model.image_size, model.image_size)
    yield _measure("encoder", None, lambda: model.autoencoder.encode(image), guided=False)


def _measure(component: str, scale: int | None, run: Callable[[], object], *, guided: bool, times: int = 1) -> MacCount:
    counter = FlopCounterMode(display=False)
    with counter:
        run()
    counts = counter.get_flop_counts().get("Global", {})
    products = sum(count for operator, count in counts.items() if operator is torch.ops.aten.bmm)
    total = counter.get_total_flops()
    attention = products if component in ("transformer", "decoder", "encoder") else 0
    layers, attention = times * (total - attention) // 2, times * attention // 2  # a product and its sum are one
    return MacCount(component, scale, layers, attention, guided)
