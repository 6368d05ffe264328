"""The generator while it is trained: its recipe, and the losses of one step.

In: captions' ids, codes and residuals of pictures, and this step's random numbers. Out: the terms of the loss. Source:
HART section 3.3 (hybrid transformer, token dropping), residual_loss.py for the residual diffusion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hart_edge.reference.config import TransformerConfig
from hart_edge.reference.residual import ResidualMLP
from hart_edge.reference.text_model import TextModel
from hart_edge.reference.transformer import Transformer
from hart_edge.training.captions import TextRecipe
from hart_edge.training.recipe import Optimisation, check
from hart_edge.training.transformer.residual_loss import Diffusion, residual_loss
from hart_edge.training.transformer.self_correction import SelfCorrection
from hart_edge.training.transformer.teacher_forcing import for_autocast, hidden_states

SHIPPED = TransformerConfig(
    patch_nums=(1, 2, 3, 4, 5, 6, 8),
    embed_dim=256,
    depth=10,
    num_heads=4,
    context_token=24,
    context_dim=192,
    diff_width=256,
    diff_depth=3,
    num_sampling_steps=8,
    shared_aln=True,
)


@dataclass(frozen=True)
class TransformerRecipe:
    """A transformer's training. side: of the pictures in pixels.

    token_drop: share of the last scale's tokens that a step leaves out (the paper: about 0.8). mirror: how probable it
    is that a picture is seen in the mirror, where its captions allow it (captions.may_be_mirrored). scale_balance: how
    far the scales weigh alike in the cross-entropy: at 0 each code does, as published, and at 1 each scale.
    group_balance: how far groups of pictures are drawn alike: at 0 each picture is, but for its weight, and at 1 each
    group (order.shares_of). self_correction: which codes of earlier scales a step replaces by wrong ones.
    """

    optimisation: Optimisation
    transformer: TransformerConfig = SHIPPED
    side: int = 128
    text: TextRecipe = field(default_factory=TextRecipe)
    token_drop: float = 0.8
    mirror: float = 0.0
    scale_balance: float = 0.0
    group_balance: float = 0.0
    self_correction: SelfCorrection = field(default_factory=SelfCorrection)

    def __post_init__(self) -> None:
        side = 16 * self.transformer.patch_nums[-1]
        check(
            self, "side", f"{side}, which is 16 times the last of transformer.patch_nums", lambda v: v == side, "recipe"
        )
        check(self, "token_drop", "0 to below 1", lambda v: 0 <= v < 1, "recipe")
        check(self, "mirror scale_balance group_balance", "0 to 1", lambda v: 0 <= v <= 1, "recipe")
        earlier = len(self.transformer.patch_nums) - 1
        check(
            self.self_correction,
            "rates",
            f"at most {earlier}, one for each scale but the last",
            lambda v: len(v) <= earlier,
            "self_correction",
        )
        check(self.transformer, "cond_drop_rate", "0 to 1", lambda v: 0 <= v <= 1, "transformer")
        check(self.transformer, "diffusion_batch_mul", "at least 1", lambda v: v >= 1, "transformer")

    @property
    def kept(self) -> int:
        """How many of the last scale's tokens a step sees."""
        return max(1, round((1 - self.token_drop) * self.transformer.patch_nums[-1] ** 2))


HART_EMOJI = TransformerRecipe(
    Optimisation(steps=8000, batch=16, learning_rate=1e-3, warmup=300, betas=(0.9, 0.95)), mirror=0.5
)


class Batch(NamedTuple):
    """B pictures, N codes to predict, of which K at the last scale; T caption tokens, M draws of the diffusion."""

    ids: Tensor  # (B, T) int64
    dropped: Tensor  # (B,) bool: whose condition is dropped
    indices: Tensor  # (B, N) int64
    inputs: Tensor  # (B, N - 1, Z): what every code but the first is predicted from
    kept: Tensor  # (B, K) int64, ascending: which of the last scale's tokens
    codes: Tensor  # (B, K, Z): codebook[index] of those
    residual: Tensor  # (B, K, Z): their residuals over RESIDUAL_SCALE
    steps: Tensor  # (B, K, M) int64, 0 to 999
    noise: Tensor  # (B, K, M, Z)

    def to(self, device: torch.device) -> Batch:
        return Batch(*(tensor.to(device) for tensor in self))


class Predicted(NamedTuple):
    logits: Tensor  # (B, N, V) float32
    residual: Tensor  # (B * K,): the residual's loss of each token


class Generator(nn.Module):
    """Text model, transformer and residual MLP; forward is one training step."""

    def __init__(self, text: TextModel, transformer: Transformer, residual: ResidualMLP, scale_balance: float) -> None:
        super().__init__()
        self.text, self.transformer, self.residual = text, transformer, residual
        self.scale_balance, self.diffusion = scale_balance, Diffusion()
        for_autocast(transformer)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss, and its two terms: cross-entropy in nats a code, a weighted mean, and the residual's loss."""
        predicted = self.predict(batch)
        each = F.cross_entropy(predicted.logits.flatten(0, 1), batch.indices.flatten(), reduction="none")
        patch_nums, kept = self.transformer.config.patch_nums, batch.kept.shape[1]
        weights = token_weights(patch_nums, kept, self.scale_balance).to(each.device)
        cross_entropy = (each.view(batch.indices.shape) * weights).sum(1).mean()
        residual = predicted.residual.mean()
        return {"loss": cross_entropy + residual, "cross_entropy": cross_entropy, "residual": residual}

    def predict(self, batch: Batch) -> Predicted:
        model = self.transformer
        context, mask = self.text(batch.ids)
        context, mask = drop_condition(context, mask, batch.dropped)
        hidden, head_modulation = hidden_states(model, batch.inputs, context, mask, batch.kept)
        logits = model.logits(hidden, head_modulation).float()
        last = hidden[:, -batch.kept.shape[1] :]
        condition = model.decoder_norm(last + model.word_embed(batch.codes))
        tokens = (each.flatten(0, 1) for each in (batch.residual, condition, batch.steps, batch.noise))  # (B * K, ...)
        return Predicted(logits, residual_loss(self.residual, self.diffusion, *tokens))


def drop_condition(context: Tensor, mask: Tensor, dropped: Tensor) -> tuple[Tensor, Tensor]:
    """The context (B, T, D) and mask (B, T) of those whose condition is dropped become what generation gives its
    unconditional branch (hart.double_context): zeros, and only position 0. Positions follow from the mask.
    """
    first = torch.arange(mask.shape[1], device=mask.device) == 0
    return torch.where(dropped[:, None, None], 0.0, context), torch.where(dropped[:, None], first, mask)


def token_weights(patch_nums: tuple[int, ...], kept: int, balance: float = 0.0) -> Tensor:
    """Each token's part in the mean over all codes (N,), the kept ones standing for all of the last scale.

    balance: 0 gives every code the same part, 1 every scale; between them a scale of n codes gets n^(1 - balance).
    """
    sizes = torch.tensor([side * side for side in patch_nums], dtype=torch.float64)
    shares = sizes ** (1 - balance)
    seen = sizes.to(torch.int64)
    seen[-1] = kept
    return (shares / shares.sum() / seen).repeat_interleave(seen).float()
