"""From codes to the latent and the next scale's tokens: here tokens become latents.

In: the untouched reference model. Out: GraphModule objects; the symbols of their shapes are those of graphs.py.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hart_edge.export.graph_module import ROTARY, GraphModule, spec
from hart_edge.reference.config import RESIDUAL_SCALE
from hart_edge.reference.dial import steps_of_run
from hart_edge.reference.hart import HART
from hart_edge.reference.quantizer import resize, to_map, to_tokens
from hart_edge.reference.residual import COLUMNS
from hart_edge.reference.selection import change, order_of, rows_at, sources_of, spread
from hart_edge.reference.transformer import visual_rotary


class LatentGraph(GraphModule):
    """Add a scale's latent to f_hat and see the sum at the next scale. `sources`: which row each token takes."""

    name = "latent"
    weight: Tensor
    bias: Tensor

    def __init__(self, model: HART) -> None:
        super().__init__()
        z, final = model.tokenizer_config.z_channels, model.patch_nums[-1]
        weight, bias = model.quantizer.phi_kernels()
        self.count, self.z = weight.shape[0], z
        self.register_buffer("weight", weight.flatten(0, 1))  # (K * Z, Z, 3, 3): every phi in one convolution
        self.register_buffer("bias", bias.flatten())
        self.inputs = (
            spec("past_f_hat", "B", z, final, final),
            spec("latent", "B", "k", z),
            spec("sources", "S", "n", dtype="int64"),
            spec("upsample", final, "p"),
            spec("phi", 1, dtype="int64"),
            spec("downsample", "q", final),
        )
        self.outputs = (spec("f_hat", "B", z, final, final), spec("next", "B", "m", z))

    def forward(
        self, past_f_hat: Tensor, latent: Tensor, sources: Tensor, upsample: Tensor, phi: Tensor, downsample: Tensor
    ) -> tuple[Tensor, ...]:
        h = resize(to_map(spread(latent, sources), upsample.shape[1]), upsample)  # (B, Z, P, P)
        every = nn.functional.conv2d(h, self.weight, self.bias, padding=1)
        every = every.unflatten(1, (self.count, self.z))
        chosen = every.index_select(1, phi)[:, 0]
        f_hat = past_f_hat + chosen
        return f_hat, to_tokens(resize(f_hat, downsample))


class EmbedGraph(GraphModule):
    """The input of a visual scale."""

    name = "embed"

    def __init__(self, model: HART) -> None:
        super().__init__()
        dim, self.head_dim = model.config.embed_dim, model.config.head_dim
        self.word_embed = model.transformer.word_embed
        self.inputs = (
            spec("next", "B", "n", model.tokenizer_config.z_channels),
            spec("level", dim),
            spec("coordinates", "n", 2),
            spec("last_position", "R", 1),
        )
        self.outputs = (spec("x", "R", "n", dim), *(spec(name, "R", "n", self.head_dim) for name in ROTARY))

    def forward(self, next: Tensor, level: Tensor, coordinates: Tensor, last_position: Tensor) -> tuple[Tensor, ...]:
        x = self.word_embed(next) + level
        rows = torch.cat([x, x])[: last_position.shape[0]]
        return rows, *visual_rotary(coordinates, last_position, self.head_dim)


class SelectGraph(GraphModule):
    """The tokens of a scale that changed most between the two scales before, for a speed that leaves others out."""

    name = "select"

    def __init__(self, model: HART) -> None:
        super().__init__()
        dim, head_dim, z = model.config.embed_dim, model.config.head_dim, model.tokenizer_config.z_channels
        final = model.patch_nums[-1]
        self.inputs = (
            spec("next", "B", "n", z),
            spec("past_f_hat", "B", z, final, final),  # without the last scale, which `next` has
            spec("downsample", "p", final),
            spec("ranks", "k", dtype="int64"),  # 0 to k - 1
            spec("x", "B", "n", dim),
            *(spec(name, "B", "n", head_dim) for name in ROTARY),
        )
        self.outputs = (
            spec("change", "B", "n"),
            spec("order", "B", "n", dtype="int64"),
            spec("sources", "B", "n", dtype="int64"),
            spec("kept_x", "B", "k", dim),
            *(spec(f"kept_{name}", "B", "k", head_dim) for name in ROTARY),
        )

    def forward(
        self,
        next: Tensor,
        past_f_hat: Tensor,
        downsample: Tensor,
        ranks: Tensor,
        x: Tensor,
        rope_cos: Tensor,
        rope_sin: Tensor,
    ) -> tuple[Tensor, ...]:
        changed = change(next, to_tokens(resize(past_f_hat, downsample)))
        order = order_of(changed)
        kept = order.index_select(1, ranks)
        taken = (rows_at(part, kept) for part in (x, rope_cos, rope_sin))
        return changed, order, sources_of(order, ranks.shape[0]), *taken


class ResidualGraph(GraphModule):
    """A run of denoising steps, and f_hat with what they make; a plan has as many runs as its speed asks for.

    Which steps they are comes in, as embeddings and as constants of the diffusion; `sources`: as in the latent graph.
    """

    name = "residual"

    def __init__(self, model: HART) -> None:
        super().__init__()
        dim, z, final = model.config.embed_dim, model.tokenizer_config.z_channels, model.patch_nums[-1]
        steps = steps_of_run(model.config.num_sampling_steps)
        self.transformer, self.residual, self.final = model.transformer, model.residual, final
        self.inputs = (
            spec("hidden", "B", "k", dim),
            spec("null_hidden", "U", "k", dim),
            spec("codes", "B", "k", z),
            spec("latent", "B", "k", z),
            spec("sources", "S", final * final, dtype="int64"),
            spec("past_f_hat", "B", z, final, final),
            spec("past_x", "B", 1, "k", z),
            spec("step_embeddings", steps, model.config.diff_width),
            spec("step_constants", steps, COLUMNS),
            spec("cfg_scale", 1),
            spec("guidance_ratio", 1),
            spec("noise", "B", steps, "k", z),
        )
        self.outputs = (
            spec("x", "B", 1, "k", z),
            spec("residual", "B", "k", z),
            spec("f_hat", "B", z, final, final),
        )

    def forward(
        self,
        hidden: Tensor,
        null_hidden: Tensor,
        codes: Tensor,
        latent: Tensor,
        sources: Tensor,
        past_f_hat: Tensor,
        past_x: Tensor,
        step_embeddings: Tensor,
        step_constants: Tensor,
        cfg_scale: Tensor,
        guidance_ratio: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, ...]:
        embedded = self.transformer.word_embed(codes)
        null_embedded = embedded[: null_hidden.shape[0]]
        both = torch.cat([hidden + embedded, null_hidden + null_embedded])  # (R, n, C), conditional branch first
        condition = self.residual.cond_embed(self.transformer.decoder_norm(both).flatten(0, 1))
        draws = [draw.flatten(0, 1) for draw in noise.unbind(1)]  # (B * n, Z) each
        strength = cfg_scale * guidance_ratio
        x = self.residual.run(past_x.flatten(0, 2), condition, step_embeddings, step_constants, draws, strength)
        residual = (x * RESIDUAL_SCALE).view_as(latent)
        return x.view_as(past_x), residual, past_f_hat + to_map(spread(latent + residual, sources), self.final)
