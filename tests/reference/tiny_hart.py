"""Tiny random HART checkpoints in the published layout, for tests, with all names and shapes written out.

`tiny_checkpoint(folder, seed, llm={...}, tokenizer={...})` writes one; the returned states are float32 numpy arrays
under their published names. Weights are large enough for every part to affect the result.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

State = dict[str, NDArray[np.float32]]

LLM = {
    "patch_nums": [1, 2, 3],
    "embed_dim": 32,
    "depth": 2,
    "num_heads": 2,
    "context_token": 6,
    "context_dim": 20,
    "context_norm_scale": 1.0,
    "diff_width": 24,
    "diff_depth": 2,
    "num_sampling_steps": "3",
    "mlp_ratio": 4.0,
    "norm_eps": 1e-6,
    "attn_l2_norm": True,
    "disable_aln": True,
    "shared_aln": False,
    "use_context_norm": True,
    "use_timestep_embed": True,
    "sep_aln_pooling_mode": "max",
    "attn_type": "llama",
    "mlp_type": "llama",
    "use_cross_attn": False,
    "sampler": "iddpm",
    "vae_path": "another/machine/tokenizer",
}
TOKENIZER = {
    "v_patch_nums": [1, 2, 3],
    "vocab_size": 40,
    "z_channels": 8,
    "ch": 32,
    "ch_mult": [1, 1, 1, 1, 1],
    "quant_conv_ks": 3,
    "quant_resi": 0.5,
    "share_quant_resi": 4,
    "default_qresi_counts": 0,
    "quantizer_type": "var_hybrid",
    "using_znorm": False,
    "beta": 0.25,
}


@dataclass(frozen=True)
class Tiny:
    """What was written: folder, configurations, and tensors under their published names."""

    folder: Path
    llm: dict
    llm_state: State
    tokenizer: dict
    tokenizer_state: State


class _Weights:
    """Fills a state with random numbers; a matrix preserves the scale of its input, times gain."""

    def __init__(self, seed: int) -> None:
        self.random, self.state = np.random.default_rng(seed), State()

    def put(self, name: str, shape: tuple[int, ...], spread: float, centre: float = 0.0) -> None:
        self.state[name] = (centre + spread * self.random.standard_normal(shape)).astype(np.float32)

    def linear(self, name: str, inside: int, outside: int, gain: float = 1.0, bias: bool = True) -> None:
        self.put(f"{name}.weight", (outside, inside), gain / inside**0.5)
        if bias:
            self.put(f"{name}.bias", (outside,), 0.2 * gain)

    def conv(self, name: str, inside: int, outside: int, kernel: int = 3, gain: float = 1.0) -> None:
        self.put(f"{name}.weight", (outside, inside, kernel, kernel), gain / (inside * kernel**2) ** 0.5)
        self.put(f"{name}.bias", (outside,), 0.2 * gain)

    def norm(self, name: str, width: int, bias: bool = True) -> None:
        self.put(f"{name}.weight", (width,), 0.3, centre=1.0)
        if bias:
            self.put(f"{name}.bias", (width,), 0.3)

    def step_mlp(self, name: str, width: int) -> None:
        self.linear(f"{name}.mlp.0", 256, width)
        self.linear(f"{name}.mlp.2", width, width)


def tiny_checkpoint(folder: Path, seed: int, *, llm: dict | None = None, tokenizer: dict | None = None) -> Tiny:
    """Write tokenizer/ and llm/ (ema_model.safetensors) of a random model; the keys given replace the defaults."""
    llm_config, tokenizer_config = LLM | (llm or {}), TOKENIZER | (tokenizer or {})
    tokenizer_config["v_patch_nums"] = llm_config["patch_nums"]
    tiny = Tiny(
        folder,
        llm_config,
        llm_state(llm_config, tokenizer_config, seed),
        tokenizer_config,
        tokenizer_state(tokenizer_config, seed + 1),
    )
    for part, config, state, name in (
        ("llm", tiny.llm, tiny.llm_state, "ema_model.safetensors"),
        ("tokenizer", tiny.tokenizer, tiny.tokenizer_state, "model.safetensors"),
    ):
        (folder / part).mkdir(parents=True, exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(config), "utf-8")
        safetensors.numpy.save_file(state, folder / part / name)
    return tiny


def llm_state(c: dict, tokenizer: dict, seed: int) -> State:
    w, C, Z, D = _Weights(seed), c["embed_dim"], tokenizer["z_channels"], c["diff_width"]
    hidden = (int(C * c["mlp_ratio"] * 2 / 3) + 255) // 256 * 256
    w.linear("word_embed", Z, C)
    w.linear("context_embed", c["context_dim"], C)
    if c["use_context_norm"]:
        w.norm("context_norm", c["context_dim"], bias=False)
    if c["use_timestep_embed"]:
        w.step_mlp("lvl_embed", C)
    else:
        w.put("lvl_embed.weight", (len(c["patch_nums"]), C), 0.7)
    for i in range(c["depth"]):
        block = f"blocks.{i}"
        if c["attn_l2_norm"]:  # one head of several is above the limit of ln 100; more would amplify every rounding
            scales = np.linspace(0.5, 2.5, c["num_heads"])
            scales[-1] = 5.0 if i == 0 and c["num_heads"] > 1 else scales[-1]
            w.state[f"{block}.attn.scale_mul_1H11"] = scales.astype(np.float32).reshape(1, -1, 1, 1)
        w.put(f"{block}.attn.q_bias", (C,), 0.5)
        w.put(f"{block}.attn.v_bias", (C,), 0.5)
        w.linear(f"{block}.attn.qkv_proj", C, 3 * C, gain=1.0 if c["attn_l2_norm"] else 2.0, bias=False)
        w.linear(f"{block}.attn.proj", C, C)
        w.linear(f"{block}.ffn.gate_proj", C, hidden, gain=1.5, bias=False)
        w.linear(f"{block}.ffn.up_proj", C, hidden, bias=False)
        w.linear(f"{block}.ffn.down_proj", hidden, C, bias=False)
        w.norm(f"{block}.ln_wo_grad", C, bias=False)
        if not c["disable_aln"]:
            w.linear(f"{block}.ada_lin.1", C, 6 * C)
        elif c["shared_aln"]:
            w.put(f"{block}.scale_shift_table", (6, C), 0.5)
    w.norm("head_nm.ln_wo_grad", C, bias=False)
    w.linear("head_nm.ada_lin.1", C, 2 * C, gain=0.7)
    w.linear("head", C, tokenizer["vocab_size"], gain=1.5)
    w.norm("decoder_norm", C, bias=False)
    net = "diffloss.net"
    w.step_mlp(f"{net}.time_embed", D)
    w.linear(f"{net}.cond_embed", C, D)
    w.linear(f"{net}.input_proj", Z, D)
    for i in range(c["diff_depth"]):
        block = f"{net}.res_blocks.{i}"
        w.norm(f"{block}.in_ln", D)
        w.linear(f"{block}.mlp.0", D, D)
        w.linear(f"{block}.mlp.2", D, D)
        w.linear(f"{block}.adaLN_modulation.1", D, 3 * D)
    w.linear(f"{net}.final_layer.linear", D, 2 * Z, gain=0.5)
    w.linear(f"{net}.final_layer.adaLN_modulation.1", D, 2 * D)
    return w.state


def tokenizer_state(c: dict, seed: int) -> State:
    w, Z = _Weights(seed), c["z_channels"]
    widths = [c["ch"] * factor for factor in c["ch_mult"]]
    last = len(widths) - 1

    def block(name: str, inside: int, outside: int) -> None:
        w.norm(f"{name}.norm1", inside)
        w.conv(f"{name}.conv1", inside, outside)
        w.norm(f"{name}.norm2", outside)
        w.conv(f"{name}.conv2", outside, outside, gain=0.7)
        if inside != outside:
            w.conv(f"{name}.nin_shortcut", inside, outside, 1)

    def attention(name: str, width: int) -> None:
        w.norm(f"{name}.norm", width)
        w.conv(f"{name}.qkv", width, 3 * width, 1, gain=1.5)
        w.conv(f"{name}.proj_out", width, width, 1)

    def middle(name: str) -> None:
        block(f"{name}.block_1", widths[last], widths[last])
        attention(f"{name}.attn_1", widths[last])
        block(f"{name}.block_2", widths[last], widths[last])

    w.conv("vae.encoder.conv_in", 3, c["ch"])
    w.conv("vae.decoder.conv_in", Z, widths[last])
    for i, width in enumerate(widths):
        inside = c["ch"] if i == 0 else widths[i - 1]
        above = widths[last] if i == last else widths[i + 1]
        for side, name, count, before in (("encoder", "down", 2, inside), ("decoder", "up", 3, above)):
            for j in range(count):
                block(f"vae.{side}.{name}.{i}.block.{j}", before if j == 0 else width, width)
                if i == last:
                    attention(f"vae.{side}.{name}.{i}.attn.{j}", width)
        if i < last:
            w.conv(f"vae.encoder.down.{i}.downsample.conv", width, width)
        if i > 0:
            w.conv(f"vae.decoder.up.{i}.upsample.conv", width, width)
    for side, width, out in (("encoder", widths[last], Z), ("decoder", widths[0], 3)):
        middle(f"vae.{side}.mid")
        w.norm(f"vae.{side}.norm_out", width)
        w.conv(f"vae.{side}.conv_out", width, out, gain=0.7)
    w.conv("vae.quant_conv", Z, Z)
    w.conv("vae.post_quant_conv", Z, Z)
    w.put("vae.quantize.embedding.weight", (c["vocab_size"], Z), 0.5)
    for name in phi_names(c):
        w.conv(name, Z, Z)
    return w.state


def phi_names(c: dict) -> list[str]:
    if abs(c["quant_resi"]) <= 1e-6:
        return []
    stem, count = "vae.quantize.quant_resi", c["share_quant_resi"]
    if count == 1:
        return [f"{stem}.qresi"]
    if count == 0:
        return [f"{stem}.{i}" for i in range(len(c["v_patch_nums"]))]
    return [f"{stem}.qresi_ls.{i}" for i in range(count)]


def tiny_context(llm: dict, padding: str, lengths: tuple[int, ...], seed: int) -> tuple[NDArray, NDArray]:
    """A random context (B, T, D) float32 and its mask (B, T) bool, padded on the side given."""
    T = llm["context_token"]
    context = np.random.default_rng(seed).standard_normal((len(lengths), T, llm["context_dim"])).astype(np.float32)
    at = np.arange(T)
    mask = np.array([at >= T - n if padding == "left" else at < n for n in lengths])
    return context, mask
