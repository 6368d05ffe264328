"""config.json: what a checkpoint may have, and the messages with which all else is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hart_edge.errors import CheckpointError
from hart_edge.reference.checkpoint import read_json
from hart_edge.reference.config import TransformerConfig, read_tokenizer_config, read_transformer_config
from tests.reference.tiny_hart import LLM, TOKENIZER


def without(config: dict, key: str) -> dict:
    return {name: value for name, value in config.items() if name != key}


def test_the_published_sizes() -> None:
    """Those of "Published sizes" in docs/arithmetic.md, with the hidden width by its formula"""
    config = read_transformer_config(
        LLM
        | {"patch_nums": [1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64], "embed_dim": 1536, "depth": 24}
        | {"num_heads": 24, "context_token": 300, "context_dim": 1536, "num_sampling_steps": "8"}
    )
    assert (config.head_dim, config.mlp_hidden, config.modulated, config.num_sampling_steps) == (64, 4096, False, 8)


@pytest.mark.parametrize(
    ("dim", "ratio", "hidden"), [(32, 4, 256), (96, 4, 256), (97, 4, 512), (64, 16, 768), (1536, 2.5, 2560)]
)
def test_mlp_hidden(dim: int, ratio: float, hidden: int) -> None:
    sizes = {"num_heads": 1, "depth": 1, "context_token": 1, "context_dim": 1, "diff_width": 1, "diff_depth": 1}
    if dim % 4:  # only the formula: such a width has no rotary axes
        with pytest.raises(CheckpointError, match="num_heads heads of a multiple of 4 channels"):
            TransformerConfig((1, 2), dim, num_sampling_steps=1, mlp_ratio=ratio, **sizes)
    else:
        assert TransformerConfig((1, 2), dim, num_sampling_steps=1, mlp_ratio=ratio, **sizes).mlp_hidden == hidden


@pytest.mark.parametrize(
    ("disable", "shared", "modulated"),
    [(False, False, True), (False, True, True), (True, True, True), (True, False, False)],
)
def test_flavours(disable: bool, shared: bool, modulated: bool) -> None:
    assert read_transformer_config(LLM | {"disable_aln": disable, "shared_aln": shared}).modulated == modulated


@pytest.mark.parametrize(
    ("resi", "share", "default", "count"),
    [(0.5, 4, 0, 4), (-0.5, 1, 0, 1), (0.5, 0, 0, 3), (0.5, 0, 7, 7), (0, 4, 0, 0)],
)
def test_phi_count(resi: float, share: int, default: int, count: int) -> None:
    changed = {"quant_resi": resi, "share_quant_resi": share, "default_qresi_counts": default}
    assert read_tokenizer_config(TOKENIZER | changed).phi_count == count


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("attn_type", "gpt2", "attn_type: expected 'llama', found 'gpt2'"),
        ("mlp_type", "gpt2", "mlp_type: expected 'llama', found 'gpt2'"),
        ("use_cross_attn", True, "use_cross_attn: expected False, found True"),
        ("sampler", "dpm", "sampler: expected 'iddpm', found 'dpm'"),
        ("num_sampling_steps", "ddim8", "num_sampling_steps: expected a finite number, found 'ddim8'"),
        ("num_sampling_steps", "0", "num_sampling_steps: expected 1 to 1000, found 0"),
        ("num_sampling_steps", 1001, "num_sampling_steps: expected 1 to 1000, found 1001"),
        ("num_sampling_steps", "2.5", "num_sampling_steps: expected an integer, found '2.5'"),
        ("num_sampling_steps", True, "num_sampling_steps: expected a finite number, found True"),
        ("num_sampling_steps", "nan", "num_sampling_steps: expected a finite number, found 'nan'"),
        ("num_sampling_steps", [8], "num_sampling_steps: expected a finite number, found [8]"),
        ("embed_dim", "wide", "embed_dim: expected a finite number, found 'wide'"),
        ("embed_dim", 30, "embed_dim: expected num_heads heads of a multiple of 4 channels (two rotary axes), found"),
        ("depth", 0, "depth: expected a positive integer, found 0"),
        ("depth", -2, "depth: expected a positive integer, found -2"),
        ("depth", 2.5, "depth: expected an integer, found 2.5"),
        ("num_heads", 0, "num_heads: expected a positive integer, found 0"),
        ("context_token", 0, "context_token: expected a positive integer, found 0"),
        ("patch_nums", "1_2_3", "patch_nums: expected a list of integers, found '1_2_3'"),
        ("patch_nums", [1, 2.0], "patch_nums: expected a list of integers, found [1, 2.0]"),
        ("patch_nums", [1, True], "patch_nums: expected a list of integers, found [1, True]"),
        ("patch_nums", [2, 3], "patch_nums: expected at least two strictly rising sides beginning with 1, found [2"),
        ("patch_nums", [1, 3, 3], "patch_nums: expected at least two strictly rising sides"),
        ("patch_nums", [1], "patch_nums: expected at least two strictly rising sides"),
        ("patch_nums", [], "patch_nums: expected at least two strictly rising sides"),
        ("attn_l2_norm", "yes", "attn_l2_norm: expected true or false, found 'yes'"),
        ("disable_aln", 1, "disable_aln: expected true or false, found 1"),
        ("sep_aln_pooling_mode", "sum", "sep_aln_pooling_mode: expected 'max' or 'avg', found 'sum'"),
    ],
)
def test_llm_is_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_transformer_config(LLM | {key: value})
    assert str(caught.value).startswith(f"llm/config.json: {message}")
    assert str(caught.value).endswith("; use a checkpoint of this architecture")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("using_znorm", True, "using_znorm: expected False, found True"),
        ("quantizer_type", "vq", "quantizer_type: expected 'var_hybrid' or 'var', found 'vq'"),
        ("ch_mult", [1, 2], "ch_mult: expected five factors (16x down), found (1, 2)"),
        ("ch", 48, "ch: expected a multiple of 32 (GroupNorm has 32 groups), found 48"),
        ("norm_groups", 5, "ch: expected a multiple of 5 (GroupNorm has 5 groups), found 32"),
        ("norm_groups", 0, "norm_groups: expected a positive integer, found 0"),
        ("ch", None, "ch is missing"),
        ("vocab_size", 0, "vocab_size: expected a positive integer, found 0"),
        ("vocab_size", "many", "vocab_size: expected a finite number, found 'many'"),
        ("quant_resi", "half", "quant_resi: expected a finite number, found 'half'"),
        ("v_patch_nums", [1, 5, 2], "v_patch_nums: expected at least two strictly rising sides"),
        ("v_patch_nums", 3, "v_patch_nums: expected a list of integers, found 3"),
    ],
)
def test_tokenizer_is_refused(key: str, value: Any, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_tokenizer_config(TOKENIZER | {key: value})
    assert str(caught.value).startswith(f"tokenizer/config.json: {message}")


@pytest.mark.parametrize("key", ["patch_nums", "embed_dim", "depth", "num_heads", "context_dim", "num_sampling_steps"])
def test_a_missing_llm_key(key: str) -> None:
    with pytest.raises(CheckpointError, match=f"^llm/config.json: {key} is missing; restore the published file$"):
        read_transformer_config(without(LLM, key))


@pytest.mark.parametrize("key", ["v_patch_nums", "vocab_size"])
def test_a_missing_tokenizer_key(key: str) -> None:
    with pytest.raises(CheckpointError, match=f"^tokenizer/config.json: {key} is missing; restore the published file$"):
        read_tokenizer_config(without(TOKENIZER, key))


def test_files_that_are_not_configurations(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(CheckpointError, match=r"config\.json: missing; copy it from the published checkpoint"):
        read_json(path)
    path.write_text("{not json")
    with pytest.raises(CheckpointError, match=r"config\.json: not readable as JSON \(.+\); copy it again"):
        read_json(path)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(CheckpointError, match=r"config\.json: not readable as JSON"):
        read_json(path)
    path.write_text(json.dumps([1, 2]))
    with pytest.raises(CheckpointError, match=r"config\.json: expected a JSON object, found list; copy it again"):
        read_json(path)
