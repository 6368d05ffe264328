"""Architecture of a HART checkpoint, as its config.json files state it.

In: llm/config.json and tokenizer/config.json. Out: two frozen dataclasses that every module is built from.
Keys that only training or the published code's kernels use are ignored.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from hart_edge.errors import CheckpointError

DIFFUSION_STEPS = 1000  # length of the full residual process (docs/arithmetic.md: 1000-step cosine betas)
DOWNSAMPLE_BLOCKS = 2  # residual blocks per resolution of the encoder; the decoder has one more
RESIDUAL_SCALE = 0.6  # residual targets are divided by it in training (paper: vae_scale)


@dataclass(frozen=True)
class TokenizerConfig:
    """The hybrid autoencoder. Source: tokenizer/config.json."""

    patch_nums: tuple[int, ...]
    vocab_size: int
    z_channels: int = 32
    ch: int = 160
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    quant_conv_ks: int = 3
    quant_resi: float = 0.5
    share_quant_resi: int = 4
    default_qresi_counts: int = 0
    beta: float = 0.25
    norm_groups: int = 32  # of every GroupNorm; ours, absent from published files

    def __post_init__(self) -> None:
        _check_scales("tokenizer", "v_patch_nums", self.patch_nums)
        _check_positive("tokenizer", self, ("vocab_size", "z_channels", "ch", "quant_conv_ks", "norm_groups"))
        if len(self.ch_mult) != 5:
            _refuse("tokenizer", "ch_mult", "five factors (16x down)", self.ch_mult)
        if self.ch % self.norm_groups:
            groups = self.norm_groups
            _refuse("tokenizer", "ch", f"a multiple of {groups} (GroupNorm has {groups} groups)", self.ch)

    @property
    def phi_count(self) -> int:
        """How many phi convolutions there are; 0 where phi is the identity."""
        if abs(self.quant_resi) <= 1e-6:
            return 0
        return self.share_quant_resi or self.default_qresi_counts or len(self.patch_nums)


@dataclass(frozen=True)
class TransformerConfig:
    """The scale-wise transformer and the residual MLP. Source: llm/config.json."""

    patch_nums: tuple[int, ...]
    embed_dim: int
    depth: int
    num_heads: int
    context_token: int
    context_dim: int
    diff_width: int
    diff_depth: int
    num_sampling_steps: int
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-6
    attn_l2_norm: bool = True
    disable_aln: bool = True
    shared_aln: bool = False
    use_context_norm: bool = True
    use_timestep_embed: bool = True
    sep_aln_pooling_mode: str = "max"
    cond_drop_rate: float = 0.1
    diffusion_batch_mul: int = 4

    def __post_init__(self) -> None:
        _check_scales("llm", "patch_nums", self.patch_nums)
        names = ("embed_dim", "depth", "num_heads", "context_token", "context_dim", "diff_width", "diff_depth")
        _check_positive("llm", self, names)
        if self.embed_dim % self.num_heads or (self.embed_dim // self.num_heads) % 4:
            expected = "num_heads heads of a multiple of 4 channels (two rotary axes)"
            _refuse("llm", "embed_dim", expected, f"{self.embed_dim} over {self.num_heads} heads")
        if not 1 <= self.num_sampling_steps <= DIFFUSION_STEPS:
            _refuse("llm", "num_sampling_steps", f"1 to {DIFFUSION_STEPS}", self.num_sampling_steps)
        if self.sep_aln_pooling_mode not in ("max", "avg"):
            _refuse("llm", "sep_aln_pooling_mode", "'max' or 'avg'", self.sep_aln_pooling_mode)

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def scale_tokens(self) -> tuple[int, ...]:
        """How many tokens every scale adds to the cache; scale 0 the context's."""
        return self.context_token, *(side * side for side in self.patch_nums[1:])

    @property
    def mlp_hidden(self) -> int:
        return (int(self.embed_dim * self.mlp_ratio * 2 / 3) + 255) // 256 * 256

    @property
    def modulated(self) -> bool:
        """Whether blocks are modulated at all; the published 0.7B is not."""
        return not self.disable_aln or self.shared_aln


def read_tokenizer_config(raw: dict[str, Any]) -> TokenizerConfig:
    """Build a TokenizerConfig from the parsed tokenizer/config.json.

    Raises CheckpointError where a field is missing, of the wrong type, or names an unsupported variant.
    """
    _require("tokenizer", raw, "quantizer_type", ("var_hybrid", "var"), default="var_hybrid")
    _require("tokenizer", raw, "using_znorm", (False,), default=False)
    take = _Taker("tokenizer", raw)
    return TokenizerConfig(
        patch_nums=take.integers("v_patch_nums"),
        vocab_size=take.integer("vocab_size"),
        z_channels=take.integer("z_channels", 32),
        ch=take.integer("ch", 160),
        ch_mult=take.integers("ch_mult", (1, 1, 2, 2, 4)),
        quant_conv_ks=take.integer("quant_conv_ks", 3),
        quant_resi=take.number("quant_resi", 0.5),
        share_quant_resi=take.integer("share_quant_resi", 4),
        default_qresi_counts=take.integer("default_qresi_counts", 0),
        beta=take.number("beta", 0.25),
        norm_groups=take.integer("norm_groups", 32),
    )


def read_transformer_config(raw: dict[str, Any]) -> TransformerConfig:
    """Build a TransformerConfig from the parsed llm/config.json. Errors as read_tokenizer_config."""
    _require("llm", raw, "attn_type", ("llama",), default="llama")
    _require("llm", raw, "mlp_type", ("llama",), default="llama")
    _require("llm", raw, "use_cross_attn", (False,), default=False)
    _require("llm", raw, "sampler", ("iddpm",), default="iddpm")
    take = _Taker("llm", raw)
    return TransformerConfig(
        patch_nums=take.integers("patch_nums"),
        embed_dim=take.integer("embed_dim"),
        depth=take.integer("depth"),
        num_heads=take.integer("num_heads"),
        context_token=take.integer("context_token"),
        context_dim=take.integer("context_dim"),
        diff_width=take.integer("diff_width"),
        diff_depth=take.integer("diff_depth"),
        num_sampling_steps=take.integer("num_sampling_steps"),
        mlp_ratio=take.number("mlp_ratio", 4.0),
        norm_eps=take.number("norm_eps", 1e-6),
        attn_l2_norm=take.flag("attn_l2_norm", False),
        disable_aln=take.flag("disable_aln", False),
        shared_aln=take.flag("shared_aln", False),
        use_context_norm=take.flag("use_context_norm", False),
        use_timestep_embed=take.flag("use_timestep_embed", False),
        sep_aln_pooling_mode=str(raw.get("sep_aln_pooling_mode", "max")),
        cond_drop_rate=take.number("cond_drop_rate", 0.1),
        diffusion_batch_mul=take.integer("diffusion_batch_mul", 4),
    )


class _Taker:
    """Typed access to a parsed config.json; published files hold some numbers as strings."""

    def __init__(self, part: str, raw: dict[str, Any]) -> None:
        self.part, self.raw = part, raw

    def _value(self, name: str, default: Any) -> Any:
        value = self.raw.get(name, default)
        if value is None:
            raise CheckpointError(f"{self.part}/config.json: {name} is missing; restore the published file")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        try:
            if isinstance(value, bool) or not math.isfinite(number := float(value)):
                raise ValueError
        except (TypeError, ValueError):
            _refuse(self.part, name, "a finite number", value)
        return number

    def integer(self, name: str, default: int | None = None) -> int:
        value = self.number(name, default)
        if not value.is_integer():
            _refuse(self.part, name, "an integer", self.raw.get(name))
        return int(value)

    def integers(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        value = self._value(name, default)
        if not isinstance(value, list | tuple) or any(type(item) is not int for item in value):
            _refuse(self.part, name, "a list of integers", value)
        return tuple(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self._value(name, default)
        if not isinstance(value, bool):
            _refuse(self.part, name, "true or false", value)
        return value


def _refuse(part: str, name: str, expected: str, found: Any) -> NoReturn:
    raise CheckpointError(
        f"{part}/config.json: {name}: expected {expected}, found {found!r}; use a checkpoint of this architecture"
    )


def _require(part: str, raw: dict[str, Any], name: str, allowed: tuple[Any, ...], default: Any) -> None:
    if raw.get(name, default) not in allowed:
        _refuse(part, name, " or ".join(map(repr, allowed)), raw[name])


def _check_scales(part: str, name: str, sides: tuple[int, ...]) -> None:
    rising = all(a < b for a, b in itertools.pairwise(sides))
    if len(sides) < 2 or sides[0] != 1 or not rising:
        _refuse(part, name, "at least two strictly rising sides beginning with 1", list(sides))


def _check_positive(part: str, config: Any, names: tuple[str, ...]) -> None:
    for name in names:
        if getattr(config, name) < 1:
            _refuse(part, name, "a positive integer", getattr(config, name))
