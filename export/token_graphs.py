"""From a context to codes: the graphs that read the prompt's tokens, run the blocks, and choose.

In: the untouched reference model. Out: GraphModule objects; the symbols of their shapes are those of graphs.py.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from hart_edge.export.graph_module import ROTARY, GraphModule, spec
from hart_edge.export.unconditional import attend_branches, compute_unconditional_branch, key_bias, to_rows
from hart_edge.reference.hart import HART
from hart_edge.reference.sampling import choose, default_top_k, guide
from hart_edge.reference.transformer import context_rotary


class ContextGraph(GraphModule):
    """What stays for all scales, the input of scale 0, and what scale 0 leaves of the unconditional branch."""

    name = "context"
    level: Tensor
    null_hidden: Tensor
    null_head_modulation: Tensor
    null_modulation: Tensor

    def __init__(self, model: HART) -> None:
        super().__init__()
        config = model.config
        self.transformer, self.head_dim = model.transformer, config.head_dim
        tokens, dim = config.context_token, config.embed_dim
        self.register_buffer("level", model.transformer.level(0))
        null = compute_unconditional_branch(model)
        self.register_buffer("null_head_modulation", null.head_modulation)
        self.register_buffer("null_modulation", null.modulation)
        self.inputs = (
            spec("context", "B", tokens, config.context_dim),
            spec("context_mask", "B", tokens, dtype="bool"),
        )
        self.outputs = (
            spec("x", "B", tokens, dim),
            spec("rope_cos", "B", tokens, self.head_dim),
            spec("rope_sin", "B", tokens, self.head_dim),
            spec("last_position", "2B", 1),
            spec("own_position", "B", 1),
            spec("head_modulation", "2B", 2, dim),
        )
        if config.modulated:
            self.outputs += (spec("modulation", "2B", config.depth * 6, dim),)
        self.register_buffer("null_hidden", null.hidden)
        self.outputs += (spec("null_hidden", "B", 1, dim),)
        self.rows: list[str] = []
        for i, pair in enumerate(null.cache):
            for part, constant in zip(("key", "value"), pair, strict=True):
                self.rows.append(f"null_{part}_{i}")
                self.register_buffer(self.rows[-1], to_rows(constant))
                self.outputs += (spec(f"null_{part}.{i}", 1, "B", config.num_heads, self.head_dim),)

    def forward(self, context: Tensor, context_mask: Tensor) -> tuple[Tensor, ...]:
        images = context.shape[0]

        def per_image(constant: Tensor) -> Tensor:
            return constant.expand(images, *constant.shape[1:])

        position_ids = context_mask.float().cumsum(1).long() - 1  # in float: TensorRT sums no integers
        last_position = position_ids[:, -1:].float()
        tokens = self.transformer.embed_context(context)
        head_modulation = self.transformer.head_modulation(tokens)
        results: tuple[Tensor, ...] = (tokens + self.level, *context_rotary(position_ids, self.head_dim))
        # positions of the unconditional branch are 0
        results += (torch.cat([last_position, torch.zeros_like(last_position)]), last_position)
        results += (torch.cat([head_modulation, per_image(self.null_head_modulation)]),)
        modulation = self.transformer.modulation(tokens, context_mask)
        if modulation is not None:
            results += (torch.cat([modulation, per_image(self.null_modulation)]),)
        rows = (getattr(self, name) for name in self.rows)
        return *results, per_image(self.null_hidden), *(one.expand(1, images, *one.shape[2:]) for one in rows)


class TransformerGraph(GraphModule):
    """All blocks for the tokens of one scale, whichever; weights exist once.

    Keys and values have their tokens on axis 0, so that what a scale adds to the cache lies behind what was there, in
    one piece: it is written in its place, and nothing that is cached is written again.
    """

    name = "transformer"

    def __init__(self, model: HART, blocks: int | None = None) -> None:
        """blocks: how many there are, of all."""
        super().__init__()
        config = model.config
        self.transformer, self.modulated = model.transformer, config.modulated
        self.context_tokens = config.context_token
        self.blocks = config.depth if blocks is None else blocks
        self._first = partial(TransformerGraph, model, 1)  # model itself would become a submodule
        heads, head_dim, dim = config.num_heads, config.head_dim, config.embed_dim
        self.inputs = (spec("x", "R", "n", dim), *(spec(name, "R", "n", head_dim) for name in ROTARY))
        self.rows = nn.ParameterList()  # per block, the rows of the modulation that are its own
        if self.modulated:
            self.inputs += (spec("modulation", "2B", config.depth * 6, dim),)
            for i in range(self.blocks):
                self.rows.append(nn.Parameter(torch.arange(6 * i, 6 * i + 6), requires_grad=False))
        self.outputs = (spec("hidden", "B", "n", dim), spec("null_hidden", "U", "n", dim))
        for i in range(self.blocks):
            for branch, rows, cached in (("", "B", "N"), ("null_", "U", "M")):
                for part in (f"{branch}key.{i}", f"{branch}value.{i}"):
                    self.inputs += (spec(f"past_{part}", cached, rows, heads, head_dim),)
                    self.outputs += (spec(part, "n", rows, heads, head_dim),)

    def first_block(self) -> GraphModule:
        first = self._first()
        first.fused = self.fused
        return first

    def forward(self, x: Tensor, rope_cos: Tensor, rope_sin: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        modulation, past = (rest[0][: x.shape[0]], rest[1:]) if self.modulated else (None, rest)
        images, cached = past[0].shape[1], past[2].shape[0]
        attend = partial(attend_branches, cos=rope_cos, sin=rope_sin, images=images, fused=self.fused)
        bias = key_bias(cached + x.shape[1], self.context_tokens)
        new: list[Tensor] = []
        for i in range(self.blocks):
            block, own = self.transformer.blocks[i], past[4 * i : 4 * i + 4]
            modulated = None if modulation is None else modulation.index_select(1, self.rows[i])
            x, entry = block(x, modulated, partial(attend, block.attn, past=own, null_bias=bias))
            new += entry
        return x[:images], x[images:], *new


class TokensGraph(GraphModule):
    """Head, guidance and choice: which code each token is, and the latent that stands for it."""

    name = "tokens"

    def __init__(self, model: HART) -> None:
        super().__init__()
        dim, z = model.config.embed_dim, model.tokenizer_config.z_channels
        vocab_size = model.tokenizer_config.vocab_size
        self.transformer, self.codebook = model.transformer, model.quantizer.codebook
        self.candidates = max(default_top_k(len(model.patch_nums), vocab_size))
        self.inputs = (
            spec("hidden", "B", "t", dim),
            spec("null_hidden", "U", "n", dim),
            spec("head_modulation", "2B", 2, dim),
            spec("positions", "n", dtype="int64"),  # which of the t tokens predict codes
            spec("uniform", "B", "n", vocab_size),
            spec("cfg_scale", 1),
            spec("guidance_ratio", 1),
            spec("temperature", 1),
            spec("top_k", 1, dtype="int64"),
            spec("top_p", 1),
            spec("smooth", 1, dtype="bool"),
        )
        self.outputs = (
            spec("logits", "B", "n", vocab_size),
            spec("indices", "B", "n", dtype="int64"),
            spec("codes", "B", "n", z),
            spec("latent", "B", "n", z),
        )

    def forward(
        self,
        hidden: Tensor,
        null_hidden: Tensor,
        head_modulation: Tensor,
        positions: Tensor,
        uniform: Tensor,
        cfg_scale: Tensor,
        guidance_ratio: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        smooth: Tensor,
    ) -> tuple[Tensor, ...]:
        both = torch.cat([hidden.index_select(1, positions), null_hidden])  # (R, n, C), conditional branch first
        logits = self.transformer.logits(both, head_modulation[: both.shape[0]])
        images, null = hidden.shape[0], null_hidden.shape[0]
        logits = guide(logits[:images], logits[null:], cfg_scale * guidance_ratio)  # without U the same twice
        return logits, *choose(
            logits,
            uniform,
            self.codebook.weight,
            ratio=guidance_ratio,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            smooth=smooth,
            candidates=self.candidates,
        )
