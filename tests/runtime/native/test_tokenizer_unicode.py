"""Every code point: the C tokenizer has the classes, NFC and lower case of the tokenizers package.

A package with tables of a newer Unicode fails here; `python -m tests.runtime.native.tokenizer_tables` adopts them.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from typing import Any

import pytest

from tests.runtime.native.tokenizer_door import CTokenizer, differences
from tests.runtime.native.tokenizer_files import ALPHABET, GPT2, LOWER, NFC, QWEN2, added, byte_level, of_bytes, split

EVERY = [*range(0xD800), *range(0xE000, 0x110000)]
# All alphabets, the code points at which the category changes, and a sample of the others.
CATEGORY = {c: unicodedata.category(chr(c)) for c in EVERY}
SOME = [c for c in EVERY if c < 0x2000 or c % 32 == 0 or CATEGORY.get(c - 1) != CATEGORY[c] != CATEGORY.get(c + 1)]
CODE_POINTS = [pytest.param(SOME, id="some"), pytest.param(EVERY, id="every", marks=pytest.mark.slow)]


def contexts(code_points: list[int], *patterns: str) -> Iterator[str]:
    """Every pattern with every character in place of its *, sixteen characters a text."""
    for pattern in patterns:
        for start in range(0, len(code_points), 16):
            yield "".join(pattern.replace("*", chr(c)) for c in code_points[start : start + 16])


@pytest.mark.parametrize("regex", [QWEN2, GPT2], ids=["qwen2", "gpt2"])
@pytest.mark.parametrize("code_points", CODE_POINTS)
def test_classes(doors: Any, code_points: list[int], regex: str) -> None:
    r"""\p{L}, \p{N} and \s in front of, between and behind characters that each of them leans on."""
    cut = {"type": "Sequence", "pretokenizers": [split(regex), byte_level(add_prefix_space=True)]}
    texts = list(contexts(code_points, "a*1* **\n*.*'s", "'*"))
    assert differences(doors, of_bytes(None, cut), texts) == []


@pytest.mark.parametrize("code_points", CODE_POINTS)
def test_lower_case(doors: Any, code_points: list[int]) -> None:
    assert differences(doors, of_bytes(LOWER), list(contexts(code_points, "*"))) == []


@pytest.mark.parametrize("code_points", CODE_POINTS)
def test_nfc(doors: Any, code_points: list[int]) -> None:
    """By itself, after a letter, before marks, and among marks of the first and the last combining class."""
    texts = list(contexts(code_points, "*e*\u0301*\u0327\u0301*\u0334\u0345\n"))
    assert differences(doors, of_bytes(NFC), texts) == []


@pytest.mark.parametrize("code_points", CODE_POINTS)
def test_words_and_spaces_beside_added_tokens(doors: Any, code_points: list[int]) -> None:
    tokens = [added("=w", 300, single_word=True), added("=s", 301, lstrip=True, rstrip=True)]
    texts = list(contexts(code_points, "*=w,=w*,*=s*"))
    assert differences(doors, of_bytes(None, added_tokens=tokens), texts) == []


def composing() -> tuple[list[int], list[int]]:
    """Characters that compose or move; and those of them that are marks."""
    found = set(range(0x1100, 0x1200)) | set(range(0xAC00, 0xAC80)) | {0xD788, 0xD7A3}
    for c in EVERY:
        parts = unicodedata.decomposition(chr(c))
        if parts and not parts.startswith("<"):
            found |= {c, *(int(part, 16) for part in parts.split())}
        elif unicodedata.combining(chr(c)):
            found.add(c)
    return sorted(found), sorted(c for c in found if unicodedata.combining(chr(c)))


@pytest.mark.parametrize("count", [20_000, pytest.param(500_000, marks=pytest.mark.slow)])
def test_nfc_of_random_characters(doors: Any, count: int) -> None:
    """Runs of characters that compose, of every script that has any, and some newer than the package's tables."""
    source = random.Random(4)
    any_of, marks = composing()
    texts = [
        "".join(chr(source.choice(marks if source.random() < 0.4 else any_of)) for _ in range(source.randrange(1, 12)))
        for _ in range(count)
    ]
    assert differences(doors, of_bytes(NFC), texts) == []


def bytes_as_ids(text: str) -> list[int]:
    """The ids that of_bytes gives for a text which normalisation does not change."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [ALPHABET.index(characters[byte]) for byte in text.encode()]


@pytest.mark.parametrize(
    ("normalizer", "text", "normalized"),
    [
        (LOWER, "\u03a3\u039f\u03a3", "\u03c3\u03bf\u03c3"),  # no final sigma
        (LOWER, "\u0130", "i\u0307"),
        (LOWER, "\u1e9e\u212a", "\u00dfk"),
        (LOWER, "\U00016ea0", "\U00016ebb"),  # Unicode 17
        (NFC, "e\u0301\u0327", "\u0229\u0301"),
        (NFC, "\u1112\u1161\u11ab", "\ud55c"),
        (NFC, "\u212b\u0958", "\u00c5\u0915\u093c"),
        (NFC, "\U00011935\U00011930", "\U00011935\U00011930"),  # Unicode 13: not yet in the package's NFC
    ],
)
def test_known_normal_forms(doors: Any, normalizer: dict[str, Any], text: str, normalized: str) -> None:
    assert CTokenizer(doors, of_bytes(normalizer)).encode([text]) == [bytes_as_ids(normalized)]
