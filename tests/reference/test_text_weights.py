"""A text model is read strictly: every tensor by name and shape, whatever its folder looks like."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

from hart_edge.errors import CheckpointError
from hart_edge.reference.text_model import TextModel, load_text_model
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer

SHIPPED = Path(__file__).parents[2] / "hart_edge" / "models" / "hart-emoji" / "text_model"
State = dict[str, torch.Tensor]
FILE = "model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped text model that a test may change"""
    return Path(shutil.copytree(SHIPPED, tmp_path / "text_model"))


def load(folder: Path) -> TextModel:
    return load_text_model(folder, 24, PromptTokenizer.padding_with)[0]


def change_weights(folder: Path, change: Callable[[State], State]) -> State:
    state = change(safetensors.torch.load_file(folder / FILE))
    safetensors.torch.save_file(state, folder / FILE, {"format": "pt"})
    return state


def change_config(folder: Path, **changed: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def into_shards(folder: Path, file: str = FILE) -> dict[str, str]:
    """Two shards in place of a file; the index."""
    state = safetensors.torch.load_file(folder / file)
    names, shards = sorted(state), [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    table = {name: shards[index % 2] for index, name in enumerate(names)}
    for shard in shards:
        own = {name: state[name] for name in names if table[name] == shard}
        safetensors.torch.save_file(own, folder / shard)
    (folder / file).unlink()
    (folder / f"{FILE}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    return table


def refused(folder: Path, *phrases: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    for phrase in phrases:
        assert phrase in str(caught.value)


def same(found: TextModel, expected: TextModel) -> bool:
    one, other = found.model.state_dict(), expected.model.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- what is understood ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_tensor_is_the_files(folder: Path, dtype: torch.dtype) -> None:
    state = change_weights(folder, lambda state: {name: tensor.to(dtype) for name, tensor in state.items()})
    found = load(folder).model.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in state.items())


def test_a_causal_model(folder: Path) -> None:
    head = {"lm_head.weight": torch.ones(2048, 192)}
    change_weights(folder, lambda state: {f"model.{name}": tensor for name, tensor in state.items()} | head)
    found = load(folder)
    assert same(found, load(SHIPPED))
    (note,) = found.notes
    assert note == (
        "text_model: a causal model, whose names begin with model.; 1 tensors that read no prompt are left out, such "
        "as lm_head.weight"
    )
    assert load(SHIPPED).notes == ()


@pytest.mark.parametrize("layout", ["as saved now", "as published"])
def test_the_language_part_of_a_vision_language_model(folder: Path, layout: str) -> None:
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [8, 12, 12]}
    text = {"vocab_size": 2048, "hidden_size": 192, "intermediate_size": 256, "num_hidden_layers": 2,
            "num_attention_heads": 3, "num_key_value_heads": 3, "rope_parameters": rope}  # fmt: skip
    vision = {"depth": 1, "embed_dim": 32, "hidden_size": 192, "num_heads": 2, "mlp_ratio": 2}
    whole = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision)).eval()
    (folder / FILE).unlink()
    whole.save_pretrained(folder)
    if layout == "as published":
        older = (("model.language_model.", "model."), ("model.visual.", "visual."))

        def published(name: str) -> str:
            return next((new + name.removeprefix(now) for now, new in older if name.startswith(now)), name)

        change_weights(folder, lambda state: {published(name): tensor for name, tensor in state.items()})
    found = load(folder)
    ids = torch.tensor([[0, 0, 5, 6, 7]])  # padded on the left
    with torch.no_grad():
        expected = whole.model(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
        torch.testing.assert_close(found(ids)[0][:, 2:], expected[:, 2:], atol=1e-5, rtol=0)
    (note,) = found.notes
    assert note.startswith("text_model: the language part of a vision-language model, whose names begin with model.")


def test_shards_with_an_index(folder: Path) -> None:
    into_shards(folder)
    found = load(folder)
    assert same(found, load(SHIPPED))
    assert found.weights is not None
    assert [path.name[:11] for path in found.weights.files.files] == ["model-00001", "model-00002"]


# --- what is refused ------------------------------------------------------------------------------


def test_names_of_another_prefix(folder: Path) -> None:
    change_weights(folder, lambda state: {f"language_model.{name}": tensor for name, tensor in state.items()})
    refused(folder, "(76 tensors)", "embed_tokens.weight: expected shape (2048, 192), found nothing")


def test_names_of_two_layouts(folder: Path) -> None:
    change_weights(folder, lambda state: state | {"model.norm.weight": torch.zeros(192)})
    refused(folder, "model.norm.weight: not part of this architecture")
    shutil.copyfile(SHIPPED / FILE, folder / FILE)
    change_weights(folder, lambda s: {f"model.{name}": t for name, t in s.items()} | {"norm.weight": torch.zeros(192)})
    refused(folder, "(1 tensors)", "norm.weight, beside model....: not part of this architecture")


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        ({"num_hidden_layers": 4}, "layers.3.self_attn.q_proj.weight: expected shape (192, 192), found nothing"),
        ({"num_hidden_layers": 2}, "layers.2.mlp.up_proj.weight: not part of this architecture"),
        ({"intermediate_size": 256}, "layers.0.mlp.up_proj.weight: expected shape (256, 192), found (512, 192)"),
        ({"vocab_size": 4096}, "embed_tokens.weight: expected shape (4096, 192), found (2048, 192)"),
        ({"model_type": "qwen9"}, "expected a text model that transformers"),
        ({"model_type": None}, "expected a text model that transformers"),
        ({"num_attention_heads": "three"}, "config.json: "),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            "quantised by gptq; use the model that they were ma",
        ),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised by awq"),
        (
            {"auto_map": {"AutoConfig": "x.C", "AutoModel": "x.M"}, "model_type": "x"},
            "expected a text model",
        ),
    ],
)
def test_another_configuration(folder: Path, change: dict[str, Any], phrase: str) -> None:
    change_config(folder, layer_types=["full_attention"] * change.get("num_hidden_layers", 3), **change)
    refused(folder, phrase)


@pytest.mark.parametrize(
    ("dtype", "phrase"),
    [
        (torch.float8_e4m3fn, "norm.weight: expected fp32, fp16 or bf16, found torch.float8_e4m3fn"),
        (torch.int8, "norm.weight: expected floating point numbers, found torch.int8"),
    ],
)
def test_other_types(folder: Path, dtype: torch.dtype, phrase: str) -> None:
    change_weights(folder, lambda state: state | {"norm.weight": state["norm.weight"].to(dtype)})
    refused(folder, "(1 tensors)", phrase)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(folder: Path, value: float) -> None:
    state = safetensors.torch.load_file(folder / FILE)
    state["norm.weight"][7] = value
    safetensors.torch.save_file(state, folder / FILE)
    refused(folder, "(1 tensors)", "norm.weight: expected finite numbers, found NaN or infinity; copy the file again")


@pytest.mark.parametrize("name", [FILE, "tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_pointer_of_git_lfs(folder: Path, name: str) -> None:
    (folder / name).write_text("version https://git-lfs.example/spec/v1\noid sha256:00\nsize 7\n")
    refused(folder, f"{name}: expected the file itself, found a git-lfs pointer to it; fetch it with `git lfs pull`")


def test_shards_that_are_not_whole(folder: Path) -> None:
    table = into_shards(folder)
    index, second = folder / f"{FILE}.index.json", folder / "model-00002-of-00002.safetensors"
    kept = second.read_bytes()
    second.unlink()
    refused(folder, "model-00002-of-00002.safetensors: missing, though model.safetensors.index.json names it")
    second.write_bytes(kept)
    index.write_text(json.dumps({"weight_map": table | {"more.weight": second.name}}))
    refused(folder, "more.weight: expected this tensor, which model.safetensors.index.json names, found none")
    index.write_text(json.dumps({"weight_map": {n: f for n, f in table.items() if n != "norm.weight"}}))
    refused(folder, "norm.weight: not in model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": table | {"norm.weight": "../x.safetensors"}}))
    refused(folder, "expected files of its own folder, found '../x.safetensors'; do not use it")
    index.unlink()
    refused(folder, "expected the index of model-00001-of-00002.safetensors")


def test_a_token_that_the_model_has_no_row_for(folder: Path) -> None:
    path = folder / "tokenizer.json"
    definition = json.loads(path.read_text("utf-8"))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    definition["added_tokens"].append({"id": 2048, "content": "<mychar>", "special": True, **flags})
    path.write_text(json.dumps(definition), "utf-8")
    refused(folder, "expected ids below 2048, the rows of the text model's", "found 2048 for '<mychar>' (1 are beyond)")
