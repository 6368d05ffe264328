"""The text side of training: the prompt tokenizer made from captions, ids of captions, text_model/ read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hart_edge.reference.text_model import load_text_model
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer
from hart_edge.training.captions import (
    Captions,
    Text,
    TextRecipe,
    make_text,
    may_be_mirrored,
    open_text,
    publish_text,
    train_tokenizer,
)
from hart_edge.training.errors import TrainingError

RECIPE = TextRecipe(vocab_size=300, depth=2, num_heads=2, hidden=16)
WORDS = ["a red heart", "A RED apple, flat", "a green apple", "green tea", "red tea: hot"] * 3
T = 6


def tokenizer(vocab_size: int = 300, length: int = T) -> PromptTokenizer:
    definition = train_tokenizer(WORDS, vocab_size)
    return PromptTokenizer(definition, length=length, pad_token_id=0, padding_side="right")


@pytest.fixture(scope="module")
def text() -> Text:
    torch.manual_seed(1)
    return make_text(RECIPE, 8, T, WORDS)


# The tokenizer.


def test_frequent_words_become_one_token_in_either_case() -> None:
    found = tokenizer()
    assert len(found.ids("red")) == len(found.ids("apple")) == 1
    assert found.ids("red apple") == found.ids("RED Apple") == [*found.ids("red"), *found.ids("apple")]
    assert found.ids("re\u0301d") == found.ids("r\u00e9d")  # one spelling of an accent


def test_every_text_has_tokens_and_none_is_the_padding() -> None:
    found = tokenizer(257)  # only the bytes
    assert len(found.ids("火")) == 1 + 3  # the space in front, and its bytes in UTF-8
    assert 0 not in found.ids("".join(chr(c) for c in range(1, 0x250)))


def test_the_tokenizer_follows_from_the_captions() -> None:
    definition = train_tokenizer(WORDS, 300)
    assert definition == train_tokenizer(iter(WORDS), 300)
    vocabulary = json.loads(definition)["model"]["vocab"]
    assert vocabulary["<pad>"] == 0 and 257 < len(vocabulary) <= 300


# The model.


def test_the_published_folder_gives_the_same_context(text: Text, tmp_path: Path) -> None:
    publish_text(tmp_path, text, {"steps": "3"})
    model, read = load_text_model(tmp_path / "text_model", T, PromptTokenizer.padding_with)
    assert sum(p.numel() for p in model.parameters()) == 300 * 8 + 2 * (4 * 64 + 3 * 8 + 3 * 8 * 16 + 2 * 8) + 8
    ids = torch.from_numpy(np.concatenate([read.encode(words) for words in WORDS[:3]]))
    assert ids.tolist() == [text.tokenizer.encode(words)[0].tolist() for words in WORDS[:3]]
    with torch.no_grad():
        (context, mask), (expected, expected_mask) = model(ids), text.model(ids)
    assert torch.equal(context, expected) and torch.equal(mask, expected_mask)
    assert context.std() > 0.1


@pytest.mark.parametrize("train", [True, False])
def test_a_text_model_is_taken_from_a_folder(text: Text, tmp_path: Path, train: bool) -> None:
    publish_text(tmp_path, text._replace(files=text.files | {"prompt.txt": "a green"}), {})
    found = open_text(tmp_path / "text_model", TextRecipe(train=train), 8, T)
    assert {p.requires_grad for p in found.model.parameters()} == {train}
    assert found.files == text.files | {"prompt.txt": "a green"}
    assert found.model.instruction.tolist() == [text.tokenizer.ids("a green")]


def test_a_folder_of_another_width(text: Text, tmp_path: Path) -> None:
    publish_text(tmp_path, text, {})
    with pytest.raises(
        TrainingError, match=r"expected a text model of 12 channels, found 8; set transformer\.context_"
    ):
        open_text(tmp_path / "text_model", RECIPE, 12, T)


def test_text_models_that_cannot_be_made() -> None:
    with pytest.raises(
        TrainingError, match=r"text\.train: expected true for a text model that is made anew, found fal"
    ):
        make_text(TextRecipe(train=False), 192, T, WORDS)
    with pytest.raises(
        TrainingError, match=r"text\.num_heads: .+ found 190 channels over 3 heads; change it, or transf"
    ):
        make_text(TextRecipe(), 190, T, WORDS)
    with pytest.raises(TrainingError, match=r"vocab_size: expected at least 257 \(the bytes and <pad>\), found 256"):
        TextRecipe(vocab_size=256)


# Captions.


def test_one_caption_of_each_picture() -> None:
    found = tokenizer()
    captions = Captions(found, [["red", "red tea"], ["apple"], ["a", "hot tea", "green"]], ["0", "1", "2"])
    expected = [found.encode(caption)[0].tolist() for caption in ("red tea", "apple", "green", "a")]
    assert captions.of([0, 1, 2, 2], np.array([0.5, 0.99, 0.7, 0.0])).tolist() == expected
    assert captions.of([2], np.array([0.34])).tolist() == [found.encode("hot tea")[0].tolist()]
    assert captions.cut == 0


def test_long_captions_are_counted() -> None:
    captions = Captions(tokenizer(), [["red", "red " * 7], ["apple " * 9]], ["0", "1"])
    assert captions.cut == 2 and captions.ids.shape == (3, T)


def test_a_caption_without_words_is_named() -> None:
    with pytest.raises(TrainingError, match=r"^1\.png: expected captions of words; prompt: '<pad>' has no token of"):
        Captions(tokenizer(), [["red"], ["<pad>"]], ["0.png", "1.png"])


@pytest.mark.parametrize(
    ("caption", "allowed"),
    [
        ("a grinning face, 3d", True),
        ("woman firefighter: medium skin tone, noto", True),
        ("a bright star", True),
        ("left arrow", False),
        ("leftwards hand", False),
        ("person running: facing right", False),
        ("flag: Norway", False),
        ("couple with heart: man, man, light skin tone, dark skin tone", False),
        ("OK hand", False),
        ("six o’clock", False),
        ("waxing crescent moon", False),
        ("Japanese “vacancy” button", False),
        ("1st place medal", False),
    ],
)
def test_which_captions_allow_mirroring(caption: str, allowed: bool) -> None:
    assert may_be_mirrored([caption]) is allowed
    assert may_be_mirrored(["a face", caption]) is allowed
