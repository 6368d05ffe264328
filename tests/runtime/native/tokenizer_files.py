"""tokenizer.json files for tests: that of Qwen2, variants of it, and one whose ids are the bytes of the text."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from tests.runtime.native.tokenizer_texts import texts

SHIPPED = Path(__file__).parents[3] / "hart_edge" / "models" / "hart-emoji" / "text_model" / "tokenizer.json"

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

NFC, LOWER = {"type": "NFC"}, {"type": "Lowercase"}
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def split(regex: str = QWEN2, behavior: str = "Isolated", invert: bool = False) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def byte_level(add_prefix_space: bool = False, use_regex: bool = False) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def added(content: str, id: int = 0, **flags: bool) -> dict[str, Any]:
    """An added token; flags not named are false."""
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": id, "content": content, **{name: flags.get(name, False) for name in names}}


# Qwen2's special tokens; below, tokens with every flag: words, parts of words, spaces, one that NFC changes.
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
FLAGGED = [
    added("<l>", lstrip=True),
    added("<r>", rstrip=True),
    added("<lr>", lstrip=True, rstrip=True),
    added("Word", single_word=True),
    added("\u00c9", single_word=True, normalized=True),
    added("Norm", normalized=True, lstrip=True),
    added("Normal", normalized=True, rstrip=True),
    added("  ", rstrip=True),
    added("\u00b2x", single_word=True, lstrip=True, rstrip=True, normalized=True),
]
FLAGGED_TEXTS = [token["content"] for token in FLAGGED] + ["norm", "e\u0301", "E\u0301", "WORD", " Word "]


@functools.cache
def trained_model() -> str:
    """A BPE model of 2,500 tokens, trained once per run on 8,000 texts of all scripts, in half a second."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(vocab_size=2500, initial_alphabet=ALPHABET, show_progress=False)
    tokenizer.train_from_iterator(texts(8_000, seed=1), trainer)
    return json.dumps(json.loads(tokenizer.to_str())["model"])


def qwen2(**changed: Any) -> dict[str, Any]:
    """A tokenizer.json with Qwen2's keys and values but another model; `changed` replaces keys of the file."""
    file = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(token, 2500 + i, special=True) for i, token in enumerate(SPECIAL)],
        "normalizer": NFC,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split(), byte_level()]},
        "post_processor": byte_level(),
        "decoder": byte_level(),
    }
    model = {} if "model" in changed else {"model": json.loads(trained_model())}
    return copy.deepcopy(file | model | changed)  # callers may edit it


def small(**changed: Any) -> dict[str, Any]:
    """As qwen2, with a vocabulary of the 256 bytes, "ab" and "abc", and a template that ends with id 7."""
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {character: i for i, character in enumerate([*ALPHABET, "ab", "abc"])},
        "merges": [["a", "b"], ["ab", "c"]],
    }
    template = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "E", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"E": {"id": "E", "ids": [7], "tokens": ["e"]}},
    }
    mine = {
        "added_tokens": [added("<x>", 258, rstrip=True, special=True)],
        "normalizer": {"type": "Sequence", "normalizers": [NFC]},
        "post_processor": template,
        "decoder": None,
        "model": model,
    }
    return qwen2(**mine | changed)


def of_bytes(normalizer: Any, pre_tokenizer: Any = None, added_tokens: Any = ()) -> str:
    """The ids are the bytes of the normalised text. With a Split, followed by add_prefix_space, every word that does
    not begin with a space gets one, so that the ids show where the text was split."""
    model = {"type": "BPE", "vocab": {character: i for i, character in enumerate(ALPHABET)}, "merges": []}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": list(added_tokens),
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer or byte_level(),
            "model": model,
        }
    )
