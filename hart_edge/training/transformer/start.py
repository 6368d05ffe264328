"""The weights that a transformer's training begins with: random ones, or those of a checkpoint.

Relative positions (Transformer.visual_rotary) let a checkpoint go on at another resolution: no tensor but a table of
level embeddings knows the scales. Sources: VAR's published initialisation, DiT (Peebles and Xie 2023) for the residual.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hart_edge.reference.checkpoint import IGNORED_LLM, LLM_WEIGHTS, RENAMED_LLM, rename
from hart_edge.reference.config import TransformerConfig, read_transformer_config
from hart_edge.reference.residual import ResidualMLP
from hart_edge.reference.transformer import Transformer
from hart_edge.reference.weight_files import find_weights, mismatches, read_json
from hart_edge.training.errors import TrainingError
from hart_edge.training.recipe import differences

log = logging.getLogger(__name__)

LEVELS = "transformer.level_embed.weight"  # (S, C), where levels are a table
# Fields in which a checkpoint's configuration may differ: none of them changes what a tensor means.
FREE = ("patch_nums", "context_token", "num_sampling_steps", "cond_drop_rate", "diffusion_batch_mul")


@torch.no_grad()
def initialise(transformer: Transformer, residual: ResidualMLP) -> None:
    """Random weights from torch's generator.

    A linear layer passes on a third of the variance of its input; what is added to the residual stream shrinks with
    the depth; the head begins near zero, so that every code is about as likely; the residual's network begins as its
    skips.
    """
    config = transformer.config
    for module in transformer.modules():
        if isinstance(module, nn.Linear):
            _normal(module, (3 * module.in_features) ** -0.5)
        elif isinstance(module, nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=(3 * config.embed_dim) ** -0.5)
    for block in transformer.blocks:
        for linear in (block.attn.proj, block.mlp.down):
            linear.weight.div_((2 * config.depth) ** 0.5)
        if hasattr(block, "modulation"):
            block.modulation.weight.mul_(0.5)
            block.modulation.bias[: 2 * config.embed_dim] = 1  # the gates begin open
        elif config.shared_aln:
            block.scale_shift_table[:2] = 1
    transformer.head.weight.mul_(0.02)
    for module in residual.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for linear in (*(block.modulation for block in residual.blocks), residual.final.modulation, residual.final.linear):
        nn.init.zeros_(linear.weight)


def _normal(linear: nn.Linear, spread: float) -> None:
    nn.init.trunc_normal_(linear.weight, std=spread)
    if linear.bias is not None:
        nn.init.zeros_(linear.bias)


def carry_over(folder: Path, transformer: Transformer, residual: ResidualMLP) -> None:
    """Load llm/ of the checkpoint FOLDER, which may have other scales. Raises TrainingError, CheckpointError.

    A table of level embeddings is resized to the new number of scales: a scale takes the levels that were as far along
    the way from the first scale to the last. Everything else is taken as it is, or refused by name.
    """
    then, now = read_transformer_config(read_json(folder / "llm" / "config.json")), transformer.config
    one, other = ({k: v for k, v in asdict(config).items() if k not in FREE} for config in (then, now))
    if found := differences(one, other):
        raise TrainingError(
            f"{folder}/llm/config.json: expected the recipe's transformer, found other values (checkpoint, recipe):\n  "
            + "\n  ".join(found)
            + "\nset the recipe's transformer to the checkpoint's, or begin without --init"
        )
    weights = find_weights(folder / "llm", LLM_WEIGHTS)
    path, state = weights.path, rename(weights.read(), RENAMED_LLM, IGNORED_LLM)
    if LEVELS in state and len(then.patch_nums) != len(now.patch_nums):
        state[LEVELS] = resized_levels(state[LEVELS], len(now.patch_nums))
        log.info("%s: %s resized from %d scales to %d", path, LEVELS, len(then.patch_nums), len(now.patch_nums))
    whole = nn.ModuleDict({"transformer": transformer, "residual": residual})
    if problems := mismatches(state, whole, ("transformer.", "residual.")):
        raise TrainingError(
            f"{path}: expected tensors of this tokenizer's size, found {len(problems)} others:\n  "
            + "\n  ".join(problems[:20])
            + "\nuse the tokenizer of the checkpoint, or begin without --init"
        )
    whole.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    log.info("%s: %d tensors carried over, %s", path, len(state), scales_in_words(then, now))


def scales_in_words(then: TransformerConfig, now: TransformerConfig) -> str:
    """from scales 1 2 3 to 1 2 3 4"""
    one, other = (" ".join(map(str, config.patch_nums)) for config in (then, now))
    return "same scales" if one == other else f"from scales {one} to {other}"


def resized_levels(table: Tensor, scales: int) -> Tensor:
    """Linear interpolation of a table of level embeddings: (S, C) -> (scales, C), the first and the last unchanged."""
    lines = table.float().T[None]  # (1, C, S)
    return F.interpolate(lines, scales, mode="linear", align_corners=True)[0].T.contiguous()
