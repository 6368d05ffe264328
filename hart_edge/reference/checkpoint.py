"""The published checkpoint layout: `tokenizer/ llm/ text_model/`, and our own sampling.json beside them, which says how
codes are drawn unless a caller asks otherwise. The only file that knows the key names.

In: a folder. Out: a HART with its weights, which weight_files.py reads. Nothing is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from hart_edge.bundle.settings import DEFAULTS, Settings, refusal
from hart_edge.errors import READING_FAULTS, CheckpointError, bordered
from hart_edge.reference.autoencoder import Autoencoder
from hart_edge.reference.config import (
    TokenizerConfig,
    TransformerConfig,
    read_tokenizer_config,
    read_transformer_config,
)
from hart_edge.reference.hart import HART
from hart_edge.reference.presets import SHIPPED_MODEL
from hart_edge.reference.quantizer import Quantizer
from hart_edge.reference.weight_files import Weights, as_float32, check_state, find_weights, read_json, refuse_quantized
from hart_edge.reference.weight_files import read_tensors as read_tensors  # its former home

# Published names on the left, ours on the right; applied in order. Errors name tensors as we do.
RENAMED_LLM = (
    (r"^diffloss\.net\.res_blocks\.(\d+)\.in_ln\.", r"residual.blocks.\1.norm."),
    (r"^diffloss\.net\.res_blocks\.(\d+)\.adaLN_modulation\.1\.", r"residual.blocks.\1.modulation."),
    (r"^diffloss\.net\.res_blocks\.", "residual.blocks."),
    (r"^diffloss\.net\.final_layer\.adaLN_modulation\.1\.", "residual.final.modulation."),
    (r"^diffloss\.net\.final_layer\.", "residual.final."),
    (r"^diffloss\.net\.", "residual."),
    (r"^blocks\.(\d+)\.attn\.qkv_proj\.", r"transformer.blocks.\1.attn.qkv."),
    (r"^blocks\.(\d+)\.attn\.scale_mul_1H11$", r"transformer.blocks.\1.attn.log_scale"),
    (r"^blocks\.(\d+)\.ffn\.(gate|up|down)_proj\.", r"transformer.blocks.\1.mlp.\2."),
    (r"^blocks\.(\d+)\.ln_wo_grad\.", r"transformer.blocks.\1.norm."),
    (r"^blocks\.(\d+)\.ada_lin\.1\.", r"transformer.blocks.\1.modulation."),
    (r"^head_nm\.ln_wo_grad\.", "transformer.head_norm.norm."),
    (r"^head_nm\.ada_lin\.1\.", "transformer.head_norm.modulation."),
    (r"^lvl_embed\.", "transformer.level_embed."),
    (r"^(?!residual\.|transformer\.)", "transformer."),
)
RENAMED_TOKENIZER = (
    (r"^vae\.", ""),
    (r"^quantize\.embedding\.", "quantizer.codebook."),
    (r"^quantize\.quant_resi\.qresi_ls\.(\d+)\.", r"quantizer.phi.\1."),  # partially shared
    (r"^quantize\.quant_resi\.qresi\.", "quantizer.phi.0."),  # one for all scales
    (r"^quantize\.quant_resi\.(\d+)\.", r"quantizer.phi.\1."),  # one a scale
    (r"^(?!quantizer\.)", "autoencoder."),
)
# Buffers that follow from the configuration, and parts that only training needs.
IGNORED_LLM = re.compile(r"^lvl_1L$|^attn_bias_for_masking$|\.zero_k_bias$|\.inv_freq$")
IGNORED_TOKENIZER = re.compile(r"^disc\.|\.ema_vocab_hit_SV$|^(vae\.)?(decoder2|post_quant_conv2)\.")

# Ours on the left, published names on the right: what training writes.
PUBLISHED_TOKENIZER = (
    (r"^autoencoder\.", "vae."),
    (r"^quantizer\.codebook\.", "vae.quantize.embedding."),
)
PUBLISHED_LLM = (
    (r"^residual\.blocks\.(\d+)\.norm\.", r"diffloss.net.res_blocks.\1.in_ln."),
    (r"^residual\.blocks\.(\d+)\.modulation\.", r"diffloss.net.res_blocks.\1.adaLN_modulation.1."),
    (r"^residual\.blocks\.", "diffloss.net.res_blocks."),
    (r"^residual\.final\.modulation\.", "diffloss.net.final_layer.adaLN_modulation.1."),
    (r"^residual\.final\.", "diffloss.net.final_layer."),
    (r"^residual\.", "diffloss.net."),
    (r"^transformer\.", ""),
    (r"^blocks\.(\d+)\.attn\.qkv\.", r"blocks.\1.attn.qkv_proj."),
    (r"^blocks\.(\d+)\.attn\.log_scale$", r"blocks.\1.attn.scale_mul_1H11"),
    (r"^blocks\.(\d+)\.mlp\.(gate|up|down)\.", r"blocks.\1.ffn.\2_proj."),
    (r"^blocks\.(\d+)\.norm\.", r"blocks.\1.ln_wo_grad."),
    (r"^blocks\.(\d+)\.modulation\.", r"blocks.\1.ada_lin.1."),
    (r"^head_norm\.norm\.", "head_nm.ln_wo_grad."),
    (r"^head_norm\.modulation\.", "head_nm.ada_lin.1."),
    (r"^level_embed\.", "lvl_embed."),
)
PUBLISHED_PHI = r"^quantizer\.phi\.(\d+)\."

LLM_WEIGHTS = ("ema_model.safetensors", "ema_model.bin", "model.safetensors", "pytorch_model.bin")
TOKENIZER_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
SAMPLING_FILE = "sampling.json"


reads_checkpoint = bordered(
    CheckpointError, "the checkpoint cannot be read", "copy it again", programming=READING_FAULTS
)


@dataclass(frozen=True)
class Part:
    """A part of the layout: the names of its weights, the first one that exists counts; how its tensors are renamed and
    which are ignored; the modules of HART that they fill."""

    files: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    ignored: re.Pattern[str]
    modules: tuple[str, ...]


PARTS = {
    "llm": Part(LLM_WEIGHTS, RENAMED_LLM, IGNORED_LLM, ("transformer.", "residual.")),
    "tokenizer": Part(TOKENIZER_WEIGHTS, RENAMED_TOKENIZER, IGNORED_TOKENIZER, ("autoencoder.", "quantizer.")),
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read into memory. weights: of llm/ and tokenizer/, the files that were used; sampling: how codes are
    drawn unless a caller asks otherwise."""

    folder: Path
    model: HART
    has_text_model: bool
    weights: Mapping[str, Weights]
    sampling: Settings

    @property
    def read(self) -> tuple[Path, ...]:
        """The weight files that were used, those of llm/ first."""
        return tuple(file for part in self.weights.values() for file in part.files)


@reads_checkpoint
def load_checkpoint(folder: str | Path) -> Checkpoint:
    """Read a HART checkpoint folder in the published layout; the model comes back in float32, in eval mode.

    The moving average of the weights (llm/ema_model.*) is preferred, as in published sampling. vae_path of
    llm/config.json is ignored: the tokenizer is the sibling folder. Raises CheckpointError.
    """
    folder = Path(folder)
    if not folder.is_dir():
        if folder == SHIPPED_MODEL:
            raise CheckpointError(
                "the wheel of a device carries the bundle of the model that comes along, not its checkpoint; name one "
                "with --checkpoint, or install from a clone or the source distribution (docs/releases.md)"
            )
        raise CheckpointError(f"{folder}: no such checkpoint folder; expected a folder holding tokenizer/ and llm/")
    for part in ("tokenizer", "llm"):
        if not (folder / part).is_dir():
            found = ", ".join(sorted(p.name for p in folder.iterdir())) or "nothing"
            raise CheckpointError(
                f"{folder}: expected the parts tokenizer/ and llm/ (and text_model/ for prompts), found {found}; "
                f"{part}/ is missing: copy it from the published checkpoint"
            )
    tokenizer = read_tokenizer_config(read_config(folder / "tokenizer"))
    transformer = read_transformer_config(read_config(folder / "llm"))
    with torch.device("meta"):
        model = HART(transformer, tokenizer)
    weights = find_hart_weights(folder)
    state: dict[str, Tensor] = {}
    for name, files in weights.items():
        own = rename(files.read(), PARTS[name].renamed, PARTS[name].ignored)
        check_state(own, model, PARTS[name].modules, files.path)
        state |= own
    model.load_state_dict(as_float32(state), assign=True)
    model.requires_grad_(False)
    has_text_model = (folder / "text_model").is_dir()
    return Checkpoint(folder, model.eval(), has_text_model, weights, read_sampling(folder))


def find_hart_weights(folder: Path) -> dict[str, Weights]:
    """The weights of llm/ and tokenizer/ by their part's name. Raises CheckpointError."""
    return {name: find_weights(folder / name, part.files) for name, part in PARTS.items()}


def each_published(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of llm/ and tokenizer/ under our name, as its file has it, one by one. Raises CheckpointError."""
    for part, weights in find_hart_weights(folder).items():
        for name, tensor in weights.each():
            for ours in rename({name: tensor}, PARTS[part].renamed, PARTS[part].ignored):
                yield ours, tensor


def read_config(folder: Path) -> dict[str, Any]:
    """FOLDER/config.json, of weights that are floating point numbers. Raises CheckpointError."""
    config = read_json(folder / "config.json")
    refuse_quantized(config, folder / "config.json")
    return config


def read_sampling(folder: Path) -> Settings:
    """FOLDER/sampling.json; nothing, which is the published settings, where there is none. Raises CheckpointError."""
    path = folder / SAMPLING_FILE
    if not path.exists():
        return Settings()
    settings = read_json(path)
    for name, value in settings.items():
        if name not in DEFAULTS:
            raise CheckpointError(f"{path}: expected only {', '.join(DEFAULTS)}, found {name}; remove it")
        wrong = refusal(name, value)
        if wrong is not None:
            raise CheckpointError(f"{path}: {name}: {wrong}; mend it")
    return cast(Settings, settings)


@reads_checkpoint
def load_tokenizer(folder: str | Path, module: nn.Module) -> None:
    """Load FOLDER's tokenizer weights into a module with `autoencoder` and `quantizer`. Raises CheckpointError."""
    weights = find_weights(Path(folder), TOKENIZER_WEIGHTS)
    state = rename(weights.read(), RENAMED_TOKENIZER, IGNORED_TOKENIZER)
    check_state(state, module, ("autoencoder.", "quantizer."), weights.path)
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()})


@reads_checkpoint
def open_tokenizer(folder: str | Path) -> tuple[Autoencoder, Quantizer]:
    """The autoencoder and the quantizer of a tokenizer/ folder, in float32 and eval mode. Raises CheckpointError."""
    config = read_tokenizer_config(read_config(Path(folder)))
    autoencoder, quantizer = Autoencoder(config), Quantizer(config)
    both = nn.ModuleDict({"autoencoder": autoencoder, "quantizer": quantizer})
    load_tokenizer(folder, both.eval().requires_grad_(False))
    return autoencoder, quantizer


def published_tokenizer(config: TokenizerConfig, state: dict[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The published form of a tokenizer: config.json, and tensors under their published names.

    state: of a module with `autoencoder` and `quantizer`. What read_tokenizer_config and load_checkpoint read back.
    """
    values = asdict(config)
    if config.norm_groups == 32:  # as every published tokenizer has it, so their readers understand ours
        del values["norm_groups"]
    raw = {"v_patch_nums": list(values.pop("patch_nums")), **values, "ch_mult": list(config.ch_mult)}
    raw |= {"model_type": "hart_autoencoder_with_disc", "quantizer_type": "var_hybrid", "using_znorm": False}
    if config.share_quant_resi == 1:
        phi = "vae.quantize.quant_resi.qresi."
    else:
        phi = r"vae.quantize.quant_resi.qresi_ls.\1." if config.share_quant_resi else r"vae.quantize.quant_resi.\1."
    rules = (*PUBLISHED_TOKENIZER, (PUBLISHED_PHI, phi))
    return raw, rename(state, rules, re.compile(r"(?!)"))


def published_transformer(
    config: TransformerConfig, state: dict[str, Tensor]
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The published form of llm/: config.json, and tensors under their published names.

    state: of a module with `transformer` and `residual`. What read_transformer_config and load_checkpoint read back.
    """
    raw = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}
    raw |= {"model_type": "hart_transformer_t2i", "attn_type": "llama", "mlp_type": "llama", "sampler": "iddpm"}
    raw |= {"use_cross_attn": False, "num_sampling_steps": str(config.num_sampling_steps)}
    raw["architectures"] = ["HARTForT2I"]
    return raw, rename(state, PUBLISHED_LLM, re.compile(r"(?!)"))


def rename(state: dict[str, Tensor], rules: tuple[tuple[str, str], ...], ignored: re.Pattern[str]) -> dict[str, Tensor]:
    """Published names to ours, or ours to published ones, without what is ignored."""
    renamed = {}
    for name, tensor in state.items():
        if ignored.search(name):
            continue
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    return renamed
