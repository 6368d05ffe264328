"""Checkpoints that need no download: the model that comes along, and published shapes without weights.

Shapes are for benchmarks, and for planning a device before a checkpoint is at hand. In: a preset's name. Out: its
configurations. Source of the sizes: HART section 4.1 and the published
configuration files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import hart_edge
from hart_edge.errors import BuildError
from hart_edge.reference.config import TokenizerConfig, TransformerConfig

SHIPPED_MODEL = Path(hart_edge.__file__).parent / "models" / "hart-emoji"
PUBLISHED_SCALES = {
    256: (1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
    512: (1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    1024: (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64),
}
PRESETS = {f"hart-0.7b-{side}": scales for side, scales in PUBLISHED_SCALES.items()}


def configs(preset: str) -> tuple[TransformerConfig, TokenizerConfig]:
    """The two configurations of a preset. Raises BuildError for an unknown name."""
    if preset not in PRESETS:
        raise BuildError(f"preset: expected one of {', '.join(PRESETS)}, found {preset!r}")
    scales = PRESETS[preset]
    transformer = TransformerConfig(
        patch_nums=scales,
        embed_dim=1536,
        depth=24,
        num_heads=24,
        context_token=300,
        context_dim=1536,
        diff_width=1024,
        diff_depth=6,
        num_sampling_steps=8,
    )
    tokenizer = TokenizerConfig(
        patch_nums=scales, vocab_size=4096, z_channels=32, ch=160, ch_mult=(1, 1, 2, 2, 4), share_quant_resi=4
    )
    return transformer, tokenizer


@dataclass(frozen=True)
class TextShape:
    """A text model of the published architecture. Source: the configuration of Qwen2 in that size."""

    layers: int = 28
    heads: int = 12
    key_value_heads: int = 2
    mlp: int = 8960
    vocabulary: int = 151_936
    instruction_tokens: int = 160  # about as many as the published instruction has


PUBLISHED_TEXT = TextShape()
