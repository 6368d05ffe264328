"""Reading the published layout: names of tensors, which files are used, and the messages of refusals."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from hart_edge.bundle.settings import Settings
from hart_edge.errors import CheckpointError
from hart_edge.reference.checkpoint import load_checkpoint
from tests.reference.tiny_hart import State, Tiny, tiny_checkpoint

LLM_WEIGHTS = "ema_model.safetensors"


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return tiny_checkpoint(tmp_path / "hart", 1, llm={"disable_aln": False}, tokenizer={"share_quant_resi": 2})


def refused(folder: Path, *phrases: str) -> str:
    """The message of the CheckpointError, which must have every phrase"""
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder)
    for phrase in phrases:
        assert phrase in str(caught.value)
    return str(caught.value)


def put_config(tiny: Tiny, part: str, **changed: Any) -> None:
    """Change keys of a config.json; None removes a key."""
    config = (tiny.llm if part == "llm" else tiny.tokenizer) | changed
    text = json.dumps({key: value for key, value in config.items() if value is not None})
    (tiny.folder / part / "config.json").write_text(text, "utf-8")


def put_llm(tiny: Tiny, name: str = LLM_WEIGHTS, **changed: np.ndarray | None) -> None:
    save(tiny.folder / "llm" / name, tiny.llm_state, changed)


def save(path: Path, state: State, changed: dict[str, np.ndarray | None]) -> None:
    kept = {key: value for key, value in (state | changed).items() if value is not None}
    safetensors.numpy.save_file(kept, path)


# --- names --------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("word_embed.weight", "transformer.word_embed.weight"),
        ("context_norm.weight", "transformer.context_norm.weight"),
        ("lvl_embed.mlp.2.bias", "transformer.level_embed.mlp.2.bias"),
        ("blocks.1.attn.qkv_proj.weight", "transformer.blocks.1.attn.qkv.weight"),
        ("blocks.0.attn.scale_mul_1H11", "transformer.blocks.0.attn.log_scale"),
        ("blocks.1.ffn.gate_proj.weight", "transformer.blocks.1.mlp.gate.weight"),
        ("blocks.1.ln_wo_grad.weight", "transformer.blocks.1.norm.weight"),
        ("blocks.1.ada_lin.1.bias", "transformer.blocks.1.modulation.bias"),
        ("head_nm.ln_wo_grad.weight", "transformer.head_norm.norm.weight"),
        ("head_nm.ada_lin.1.weight", "transformer.head_norm.modulation.weight"),
        ("decoder_norm.weight", "transformer.decoder_norm.weight"),
        ("diffloss.net.cond_embed.weight", "residual.cond_embed.weight"),
        ("diffloss.net.res_blocks.1.in_ln.bias", "residual.blocks.1.norm.bias"),
        ("diffloss.net.res_blocks.0.adaLN_modulation.1.weight", "residual.blocks.0.modulation.weight"),
        ("diffloss.net.res_blocks.0.mlp.2.weight", "residual.blocks.0.mlp.2.weight"),
        ("diffloss.net.final_layer.adaLN_modulation.1.bias", "residual.final.modulation.bias"),
        ("diffloss.net.final_layer.linear.weight", "residual.final.linear.weight"),
        ("vae.encoder.down.4.attn.1.qkv.weight", "autoencoder.encoder.down.4.attn.1.qkv.weight"),
        ("vae.post_quant_conv.bias", "autoencoder.post_quant_conv.bias"),
        ("vae.quantize.embedding.weight", "quantizer.codebook.weight"),
        ("vae.quantize.quant_resi.qresi_ls.1.weight", "quantizer.phi.1.weight"),
    ],
)
def test_a_name_of_each_kind(tiny: Tiny, published: str, ours: str) -> None:
    found = load_checkpoint(tiny.folder).model.state_dict()[ours]
    np.testing.assert_array_equal(found.numpy(), (tiny.llm_state | tiny.tokenizer_state)[published])


@pytest.mark.parametrize(
    ("llm", "tokenizer"),
    [
        ({"disable_aln": False}, {"share_quant_resi": 4}),
        ({"shared_aln": True, "use_timestep_embed": False}, {"share_quant_resi": 1}),
        ({"attn_l2_norm": False, "use_context_norm": False}, {"share_quant_resi": 0, "ch_mult": [1, 2, 1, 1, 2]}),
        ({}, {"quant_resi": 0.0}),
    ],
)
def test_every_tensor_arrives_once(tmp_path: Path, llm: dict, tokenizer: dict) -> None:
    tiny = tiny_checkpoint(tmp_path, 2, llm=llm, tokenizer=tokenizer)
    model = load_checkpoint(tmp_path).model
    written = [value.tobytes() for value in (*tiny.llm_state.values(), *tiny.tokenizer_state.values())]
    assert sorted(value.numpy().tobytes() for value in model.state_dict().values()) == sorted(written)
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_come_back_in_float32(tiny: Tiny, dtype: torch.dtype) -> None:
    (tiny.folder / "llm" / LLM_WEIGHTS).unlink()
    state = {name: torch.from_numpy(value).to(dtype) for name, value in tiny.llm_state.items()}
    torch.save({"state_dict": state}, tiny.folder / "llm" / "ema_model.bin")
    found = load_checkpoint(tiny.folder).model.transformer.head.weight
    assert found.dtype == torch.float32
    assert torch.equal(found, state["head.weight"].float())


# --- which files and keys are used ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        (["model.safetensors"], "model.safetensors"),
        (["pytorch_model.bin"], "pytorch_model.bin"),
        (["ema_model.bin", "model.safetensors"], "ema_model.bin"),
        (["ema_model.safetensors", "ema_model.bin", "model.safetensors"], "ema_model.safetensors"),
    ],
)
def test_the_moving_average_is_preferred(tiny: Tiny, present: list[str], chosen: str) -> None:
    (tiny.folder / "llm" / LLM_WEIGHTS).unlink()
    for mark, name in enumerate(present, start=1):
        state = tiny.llm_state | {"head.bias": np.full(40, mark, np.float32)}
        if name.endswith(".bin"):
            torch.save({key: torch.from_numpy(value) for key, value in state.items()}, tiny.folder / "llm" / name)
        else:
            safetensors.numpy.save_file(state, tiny.folder / "llm" / name)
    checkpoint = load_checkpoint(tiny.folder)
    assert float(checkpoint.model.transformer.head.bias[0]) == present.index(chosen) + 1
    assert checkpoint.read == (tiny.folder / "llm" / chosen, tiny.folder / "tokenizer" / "model.safetensors")
    assert not checkpoint.has_text_model


@pytest.mark.long
@pytest.mark.parametrize(("value", "steps"), [("8", 8), (20, 20), ("1000", 1000), (1, 1), (5.0, 5)])
def test_sampling_steps_may_be_a_string(tiny: Tiny, value: Any, steps: int) -> None:
    put_config(tiny, "llm", num_sampling_steps=value)
    model = load_checkpoint(tiny.folder).model
    assert model.config.num_sampling_steps == steps == len(model.residual.schedule.timesteps)


@pytest.mark.long
def test_sampling_settings_come_from_the_file(tiny: Tiny) -> None:
    assert load_checkpoint(tiny.folder).sampling == Settings()
    (tiny.folder / "sampling.json").write_text('{"top_p": 0.5, "cfg_scale": 3}', "utf-8")
    assert load_checkpoint(tiny.folder).sampling == Settings(cfg_scale=3, top_p=0.5)
    (tiny.folder / "sampling.json").write_text('{"smooth": false}', "utf-8")
    assert load_checkpoint(tiny.folder).sampling == Settings(smooth=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"top_p": 0}', "top_p: expected 0.000001 to 1, found 0"),
        ('{"top_p": true}', "top_p: expected 0.000001 to 1, found True"),
        ('{"cfg_scale": NaN}', "cfg_scale: expected 0 to 100, found nan"),
        ('{"smooth": 1}', "smooth: expected true or false, found 1"),
        ('{"temperature": 1}', "expected only cfg_scale, top_p, smooth, speed, found temperature"),
    ],
)
def test_impossible_settings_are_refused(tiny: Tiny, content: str, message: str) -> None:
    (tiny.folder / "sampling.json").write_text(content, "utf-8")
    refused(tiny.folder, "sampling.json: ", message)


def test_scales_come_from_the_file(tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path, 3, llm={"patch_nums": [1, 3, 4, 9]})
    model = load_checkpoint(tmp_path).model
    assert model.patch_nums == model.quantizer.patch_nums == (1, 3, 4, 9)
    assert model.image_size == 144


def test_keys_for_training_are_ignored(tiny: Tiny) -> None:
    put_llm(
        tiny,
        lvl_1L=np.zeros((1, 19), np.int64),
        attn_bias_for_masking=np.full((1, 1, 19, 19), -np.inf, np.float32),
        **{"blocks.0.attn.zero_k_bias": np.zeros(32, np.float32)},
    )
    extra = {"disc.head.weight": np.ones(3, np.float32), "vae.quantize.ema_vocab_hit_SV": np.ones((3, 40), np.float32)}
    save(tiny.folder / "tokenizer" / "model.safetensors", tiny.tokenizer_state, extra)
    put_config(tiny, "llm", vae_path="/nowhere", drop_path_rate=0.3, flash_if_available=True, fancy_new_key=[1])
    put_config(tiny, "tokenizer", test_mode=False, levels=[8, 8], dropout=0.1)
    names = load_checkpoint(tiny.folder).model.state_dict()
    assert len(names) == len(tiny.llm_state) + len(tiny.tokenizer_state)


# --- what is refused -----------------------------------------------------------------------------


def test_no_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none", "none: no such checkpoint folder; expected a folder holding tokenizer/ and llm/")


@pytest.mark.parametrize(("part", "left"), [("tokenizer", "llm"), ("llm", "tokenizer")])
def test_a_missing_part(tiny: Tiny, part: str, left: str) -> None:
    (tiny.folder / part).rename(tiny.folder.parent / "gone")
    refused(tiny.folder, f"found {left}; {part}/ is missing: copy it from the published checkpoint")


def test_an_empty_folder(tmp_path: Path) -> None:
    refused(tmp_path, "expected the parts tokenizer/ and llm/", "found nothing; tokenizer/ is missing")


def test_no_weights(tiny: Tiny) -> None:
    (tiny.folder / "llm" / LLM_WEIGHTS).unlink()
    refused(tiny.folder, "llm: no weights; expected one of ema_model.safetensors, ema_model.bin, model.safetensors")


def test_a_missing_tensor(tiny: Tiny) -> None:
    put_llm(tiny, **{"blocks.1.ffn.up_proj.weight": None})
    shape = "transformer.blocks.1.mlp.up.weight: expected shape (256, 32), found nothing"
    refused(tiny.folder, f"{LLM_WEIGHTS}: does not fit its config.json (1 tensors)", shape, "use the config.json that")


def test_a_misshapen_tensor(tiny: Tiny) -> None:
    put_llm(tiny, **{"head.weight": np.zeros((41, 32), np.float32)})
    refused(tiny.folder, "transformer.head.weight: expected shape (40, 32), found (41, 32)")


def test_an_unknown_tensor(tiny: Tiny) -> None:
    put_llm(tiny, **{"blocks.0.attn.surprise": np.zeros(3, np.float32)})
    refused(tiny.folder, "transformer.blocks.0.attn.surprise: not part of this architecture")


def test_a_tensor_of_integers(tiny: Tiny) -> None:
    put_llm(tiny, **{"head.bias": np.zeros(40, np.int32)})
    refused(tiny.folder, "transformer.head.bias: expected floating point numbers, found torch.int32")


def test_many_problems_are_counted(tiny: Tiny) -> None:
    put_config(tiny, "llm", depth=4)
    missing = sum(name.startswith("blocks.0.") for name in tiny.llm_state) * 2
    refused(tiny.folder, f"({missing} tensors)", f"and {missing - 20} more", "blocks.2.attn.q_bias: expected shape")


@pytest.mark.long
def test_the_generator_decides_the_scales(tiny: Tiny) -> None:
    put_config(tiny, "tokenizer", v_patch_nums=[1, 2, 4])
    model = load_checkpoint(tiny.folder).model
    assert model.quantizer.patch_nums == model.patch_nums == tuple(tiny.llm["patch_nums"]) != (1, 2, 4)


class Shell:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickled_object_is_not_run(tiny: Tiny, tmp_path: Path, writer: str) -> None:
    (tiny.folder / "llm" / LLM_WEIGHTS).unlink()
    path, trace = tiny.folder / "llm" / "ema_model.bin", tmp_path / "trace"
    if writer == "torch":
        torch.save({"head.bias": torch.zeros(2), "evil": Shell(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"evil": Shell(trace)}, protocol=2))
    message = refused(tiny.folder, "ema_model.bin")
    assert not trace.exists()
    if writer == "torch":
        assert "holds Python objects, not only tensors, and reading them could run code; it was not read" in message
        assert "Save a plain state dict, or convert the file to safetensors" in message
    torch.load(path, weights_only=False, mmap=False) if writer == "torch" else pickle.loads(path.read_bytes())
    assert trace.exists()  # the file would indeed have run code


@pytest.mark.parametrize("content", [[1.0, 2.0], {"weights": [1.0]}, torch.zeros(3)], ids=["list", "nested", "tensor"])
def test_a_bin_without_a_state_dict(tiny: Tiny, content: Any) -> None:
    (tiny.folder / "llm" / LLM_WEIGHTS).unlink()
    torch.save(content, tiny.folder / "llm" / "ema_model.bin")
    refused(tiny.folder, "ema_model.bin: expected a dictionary of tensors; save model.state_dict() instead")


@pytest.mark.parametrize("keep", [0, 4, 200, -100])
def test_truncated_safetensors(tiny: Tiny, keep: int) -> None:
    path = tiny.folder / "tokenizer" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    message = refused(tiny.folder)
    assert re.fullmatch(rf"{re.escape(str(path))}: not a readable weight file \(.+\); copy it again", message)


def test_a_truncated_bin(tiny: Tiny) -> None:
    path = tiny.folder / "llm" / "ema_model.bin"
    torch.save({key: torch.from_numpy(value) for key, value in tiny.llm_state.items()}, path)
    (tiny.folder / "llm" / LLM_WEIGHTS).unlink()
    path.write_bytes(path.read_bytes()[:-2000])
    refused(tiny.folder, "ema_model.bin: not a readable weight file (", "); copy it again")
