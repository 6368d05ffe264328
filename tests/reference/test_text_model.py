"""Prompt -> ids -> context: padding, truncation, refusals, the instruction, and the results of transformers."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, PreTrainedTokenizerFast

from hart_edge.errors import BundleError, CheckpointError, HartEdgeError, InputError
from hart_edge.reference.text_model import TextModel, load_text_model
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer, PromptTruncatedWarning

SHIPPED = Path(__file__).parents[2] / "hart_edge" / "models" / "hart-emoji" / "text_model"
DEFINITION = (SHIPPED / "tokenizer.json").read_text("utf-8")
T, PAD = 24, 0
PROMPTS = ["a grinning face", "Red HEART", "woman firefighter: medium skin tone", "x", "ünïcode 火 🙂"]


def make(side: str = "right", length: int = T) -> PromptTokenizer:
    return PromptTokenizer(DEFINITION, length=length, pad_token_id=PAD, padding_side=side)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the shipped text model that a test may change"""
    return Path(shutil.copytree(SHIPPED, tmp_path / "text_model"))


@pytest.fixture(scope="module")
def shipped() -> tuple[TextModel, PromptTokenizer]:
    return load_text_model(SHIPPED, T, PromptTokenizer.padding_with)


def change_settings(folder: Path, **changed: Any) -> None:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text("utf-8")) | changed
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}), "utf-8")


# --- ids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", PROMPTS)
def test_padding_on_either_side(prompt: str) -> None:
    ids = make().ids(prompt)
    right, left = make("right").encode(prompt), make("left").encode(prompt)
    assert right.shape == left.shape == (1, T)
    assert right.dtype == left.dtype == np.int64
    assert right[0].tolist() == ids + [PAD] * (T - len(ids))
    assert left[0].tolist() == [PAD] * (T - len(ids)) + ids
    assert PAD not in ids


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_long_prompt_keeps_its_first_tokens(side: str) -> None:
    tokenizer, prompt = make(side, length=5), "a woman firefighter with a red heart and a green apple"
    ids = tokenizer.ids(prompt)
    message = f"the prompt has {len(ids)} tokens, the model reads 5: the first 5 are kept"
    with pytest.warns(PromptTruncatedWarning) as caught:
        found = tokenizer.encode(prompt)
    assert [str(warning.message) for warning in caught] == [message]
    assert caught[0].filename == __file__  # the caller's line
    assert found[0].tolist() == ids[:5]


def test_a_prompt_that_just_fits_does_not_warn() -> None:
    ids = make().ids(PROMPTS[2])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make(length=len(ids)).encode(PROMPTS[2])[0].tolist() == ids


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt: expected words, found an empty string; say what to draw, such as 'a red heart'"),
        ("  \t\n ", "prompt: expected words, found an empty string; say what to draw, such as 'a red heart'"),
        ("\u3000\u00a0", "prompt: expected words, found an empty string; say what to draw, such as 'a red heart'"),
        (None, "prompt: expected a string, found NoneType; pass the text to draw"),
        (7, "prompt: expected a string, found int; pass the text to draw"),
        (b"face", "prompt: expected a string, found bytes; pass the text to draw"),
        (["face"], "prompt: expected a string, found list; pass the text to draw"),
        ("face \ud83d", "prompt: not valid Unicode (surrogates not allowed); remove the lone surrogate"),
        ("<pad>", "prompt: '<pad>' has no token of this model's tokenizer; use words it knows"),
    ],
)
def test_refused_prompts(prompt: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make().encode(prompt)
    assert str(caught.value) == message
    assert isinstance(caught.value, HartEdgeError) and isinstance(caught.value, ValueError)


def test_token_id() -> None:
    assert PromptTokenizer.token_id(DEFINITION, "<pad>") == PAD
    for token in (None, "<nothing>"):
        with pytest.raises(BundleError, match=r"tokenizer: expected a padding token, found .+; set pad_token in"):
            PromptTokenizer.token_id(DEFINITION, token)


@pytest.mark.parametrize("definition", ["", "{}", "not json", DEFINITION[:1000]])
def test_a_broken_definition(definition: str) -> None:
    with pytest.raises(BundleError, match=r"(?s)tokenizer\.json: not a tokenizers file \(.+\); copy it again"):
        PromptTokenizer(definition, length=T, pad_token_id=PAD, padding_side="right")


# --- context ------------------------------------------------------------------------------------


def test_the_shipped_model_as_transformers_runs_it(shipped: tuple[TextModel, PromptTokenizer]) -> None:
    model, tokenizer = shipped
    # Not AutoTokenizer: for the model_type qwen2, transformers 5 replaces the pre-tokenizer of tokenizer.json by that
    # model's own, which neither lower-cases nor knows " red".
    theirs = PreTrainedTokenizerFast.from_pretrained(SHIPPED, local_files_only=True)
    batch = theirs(PROMPTS, padding="max_length", max_length=T, return_tensors="pt")
    ids = torch.from_numpy(np.concatenate([tokenizer.encode(prompt) for prompt in PROMPTS]))
    assert torch.equal(ids, batch["input_ids"])
    network = AutoModel.from_pretrained(SHIPPED, local_files_only=True, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = network(input_ids=ids, attention_mask=batch["attention_mask"]).last_hidden_state
        context, mask = model(ids)
    assert context.shape == (len(PROMPTS), T, 192)
    assert context.dtype == torch.float32
    assert mask.dtype == torch.bool
    assert torch.equal(mask.long(), batch["attention_mask"])
    assert expected.std() > 0.3
    torch.testing.assert_close(context, expected, atol=1e-4, rtol=0)


def test_the_prompt_decides_the_context(shipped: tuple[TextModel, PromptTokenizer]) -> None:
    model, tokenizer = shipped
    first, second = (model(torch.from_numpy(tokenizer.encode(prompt)))[0] for prompt in PROMPTS[:2])
    assert (first[:, 0] - second[:, 0]).abs().max() > 0.1
    together, _ = model(torch.from_numpy(np.concatenate([tokenizer.encode(prompt) for prompt in PROMPTS])))
    torch.testing.assert_close(together[:1], first, atol=1e-4, rtol=0)  # the rest of the batch does not


@pytest.mark.parametrize("side", ["right", "left"])
def test_an_instruction_is_read_in_front(folder: Path, side: str) -> None:
    instruction = "draw a small picture of"
    change_settings(folder, padding_side=side)
    (folder / "prompt.txt").write_text(instruction, "utf-8")
    model, tokenizer = load_text_model(folder, T, PromptTokenizer.padding_with)
    assert tokenizer.padding_side == side
    front = tokenizer.ids(instruction)
    assert model.instruction.tolist() == [front]
    ids = tokenizer.ids(PROMPTS[0])
    context, mask = model(torch.from_numpy(tokenizer.encode(PROMPTS[0])))
    own = slice(0, len(ids)) if side == "right" else slice(T - len(ids), T)
    assert context.shape == (1, T, 192)
    assert mask.shape == (1, T)
    assert mask[0, own].all() and int(mask.sum()) == len(ids)
    if side == "right":  # then no padding stands between instruction and prompt
        network = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32).eval()
        expected = network(input_ids=torch.tensor([front + ids])).last_hidden_state[:, len(front) :]
        torch.testing.assert_close(context[:, own], expected, atol=1e-4, rtol=0)
    (folder / "prompt.txt").unlink()
    bare, _ = load_text_model(folder, T, PromptTokenizer.padding_with)
    without = bare(torch.from_numpy(tokenizer.encode(PROMPTS[0])))[0]
    assert (context[:, own] - without[:, own]).abs().max() > 0.05


def test_the_shipped_model_has_no_instruction(shipped: tuple[TextModel, PromptTokenizer]) -> None:
    assert shipped[0].instruction.shape == (1, 0)
    assert not any(parameter.requires_grad for parameter in shipped[0].parameters())
    assert {parameter.dtype for parameter in shipped[0].parameters()} == {torch.float32}


def test_older_tokenizer_settings(folder: Path) -> None:
    change_settings(folder, pad_token={"content": "<pad>", "lstrip": False}, padding_side=None)
    _, tokenizer = load_text_model(folder, 9, PromptTokenizer.padding_with)
    assert (tokenizer.pad_token_id, tokenizer.padding_side, tokenizer.length) == (PAD, "right", 9)


def test_files_that_a_text_model_needs(folder: Path) -> None:
    change_settings(folder, padding_side="middle")
    with pytest.raises(CheckpointError, match="padding_side: expected left or right, found 'middle'"):
        load_text_model(folder, T, PromptTokenizer.padding_with)
    change_settings(folder, padding_side="left", pad_token=None)
    with pytest.raises(BundleError, match="expected a padding token, found None; set pad_token in tokenizer_config"):
        load_text_model(folder, T, PromptTokenizer.padding_with)
    change_settings(folder, pad_token="<pad>")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"not a readable Hugging Face text model \(.+\); copy it again"):
        load_text_model(folder, T, PromptTokenizer.padding_with)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: missing; save the tokenizer with tokenizer\.save_pre"):
        load_text_model(folder, T, PromptTokenizer.padding_with)
