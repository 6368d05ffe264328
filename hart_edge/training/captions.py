"""Captions -> token ids -> context: a tokenizer and a small Qwen2 made here, or a text model taken from a folder.

In: the training captions, or a text_model/ folder. Out: the module that the generator is trained with, the ids of
every caption, and text_model/ in the published layout. Source of the padding rules: runtime/prompt_tokenizer.py.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch import Tensor

from hart_edge.errors import InputError
from hart_edge.reference.text_model import TextModel, load_text_model
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer, PromptTruncatedWarning
from hart_edge.training.checkpoints import publish, write_bytes
from hart_edge.training.errors import TrainingError
from hart_edge.training.recipe import check

PAD = "<pad>"
BYTES = 256
DEFINITION, SETTINGS, INSTRUCTION = "tokenizer.json", "tokenizer_config.json", "prompt.txt"


@dataclass(frozen=True)
class TextRecipe:
    """A text model to be made: a Qwen2 as wide as the context. Where one is taken from a folder, only `train` counts.

    train: whether it learns along with the transformer; a frozen one has to be taken from a folder.
    """

    vocab_size: int = 2048
    depth: int = 3
    num_heads: int = 3
    hidden: int = 512  # channels inside a block's MLP
    train: bool = True

    def __post_init__(self) -> None:
        least = BYTES + 1
        check(self, "vocab_size", f"at least {least} (the bytes and {PAD})", lambda v: v >= least, "text")
        check(self, "depth num_heads hidden", "at least 1", lambda v: v >= 1, "text")


class Text(NamedTuple):
    """files: what text_model/ holds beside the weights and their config.json, by name."""

    model: TextModel
    tokenizer: PromptTokenizer
    files: dict[str, str]


def train_tokenizer(captions: Iterable[str], vocab_size: int) -> str:
    """The text of a tokenizer.json: a lower-casing byte-level BPE of up to vocab_size tokens; the padding is token 0.

    Every byte has a token, so that no prompt has words that the tokenizer cannot read.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[PAD], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    return tokenizer.to_str()


def make_text(recipe: TextRecipe, width: int, tokens: int, captions: Iterable[str]) -> Text:
    """A new text model with `width` channels for prompts of up to `tokens` tokens, and a tokenizer of the captions.

    Weights are drawn from torch's generator. Raises TrainingError.
    """
    from transformers import Qwen2Config, Qwen2Model  # slow to import

    if not recipe.train:
        raise TrainingError(
            "text.train: expected true for a text model that is made anew, found false; name a trained one with "
            "--text-model FOLDER or --init CHECKPOINT, or let it learn along"
        )
    if width % recipe.num_heads or width // recipe.num_heads % 2:
        raise TrainingError(
            f"text.num_heads: expected heads of an even number of channels, found {width} channels over "
            f"{recipe.num_heads} heads; change it, or transformer.context_dim"
        )
    definition = train_tokenizer(captions, recipe.vocab_size)
    config = Qwen2Config(  # type: ignore[call-arg]  # attn_implementation is taken by its **kwargs
        vocab_size=recipe.vocab_size,
        hidden_size=width,
        intermediate_size=recipe.hidden,
        num_hidden_layers=recipe.depth,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_heads,
        max_position_embeddings=tokens,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
        architectures=["Qwen2Model"],
        dtype="float32",
        attn_implementation="eager",  # as the reference reads it (hart_edge/reference/text_model.py)
    )
    settings = {"model_max_length": tokens, "pad_token": PAD, "padding_side": "right"}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"  # model_type qwen2 alone would mean another splitting
    files = {DEFINITION: definition, SETTINGS: json.dumps(settings, indent=2) + "\n"}
    tokenizer = PromptTokenizer(definition, length=tokens, pad_token_id=0, padding_side="right")
    return Text(TextModel(Qwen2Model(config), [], 0), tokenizer, files)


def open_text(folder: Path, recipe: TextRecipe, width: int, tokens: int) -> Text:
    """The text model of a text_model/ folder, frozen where the recipe says so. Raises HartEdgeError."""
    model, tokenizer = load_text_model(folder, tokens, PromptTokenizer.padding_with)
    found = model.model.config.hidden_size
    if found != width:
        raise TrainingError(
            f"{folder}: expected a text model of {width} channels, found {found}; set transformer.context_dim={found}"
        )
    names = [name for name in (DEFINITION, SETTINGS, INSTRUCTION) if (folder / name).is_file()]
    model.requires_grad_(recipe.train)
    return Text(model, tokenizer, {name: (folder / name).read_text("utf-8") for name in names})


def publish_text(folder: Path, text: Text, metadata: dict[str, str]) -> None:
    """Write FOLDER/text_model/ in the published layout, which load_text_model reads."""
    network = text.model.model
    config: dict[str, Any] = json.loads(network.config.to_json_string(use_diff=False))
    publish(folder / "text_model", config, network.state_dict(), {"format": "pt", **metadata})
    for name, contents in text.files.items():
        write_bytes(folder / "text_model" / name, contents.encode())


class Captions:
    """The ids of every caption of every picture: (number of captions, T) in one array."""

    def __init__(self, tokenizer: PromptTokenizer, captions: Sequence[Sequence[str]], names: Sequence[str]) -> None:
        """names: of the pictures, for messages. Raises TrainingError where a caption has no token."""
        encoded = []
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PromptTruncatedWarning)
            for name, own in zip(names, captions, strict=True):
                try:
                    encoded += [tokenizer.encode(caption)[0] for caption in own]
                except InputError as error:
                    raise TrainingError(f"{name}: expected captions of words; {error}") from None
        self.ids = np.array(encoded, np.int32)
        self.counts = np.array([len(own) for own in captions])
        self.first = np.cumsum(self.counts) - self.counts
        self.cut = sum(issubclass(warning.category, PromptTruncatedWarning) for warning in caught)

    def of(self, rows: Sequence[int] | NDArray[np.int64], which: NDArray[np.float64]) -> Tensor:
        """One caption of each picture: (B, T) int64. which: (B,) in [0, 1); 0 is the first, the canonical one."""
        at = self.first[rows] + (which * self.counts[rows]).astype(np.int64)
        return torch.from_numpy(self.ids[at].astype(np.int64))


# What a caption says that a mirrored picture would make untrue: sides, writing and signs, the moon's phases and clocks,
# flags, and people or things in an order.
SIDED = re.compile(
    r"\b(left|right|east|west|facing|clockwise|counterclockwise|anticlockwise|arrow|direction|turn|"
    r"letter|word|writing|text|alphabet|latin|number|numeral|digit|keycap|input|button|sign|symbol|mark|punctuation|"
    r"zodiac|music|note|math|currency|banknote|dollar|euro|yen|pound|newspaper|calendar|page|book|map|medal|"
    r"moon|clock|o[’']clock|thirty|watch|time|flag|family|couple|people|men|women|and|hands)(s|wards?)?\b"
    r"|\d(?!d\b)|[“”&]|\b[A-Z]{2,}\b|skin tone.*skin tone"
)


def may_be_mirrored(captions: Iterable[str]) -> bool:
    """Whether every caption of a picture stays true of its mirror image, as far as its English words tell."""
    return not any(SIDED.search(caption) for caption in captions)
