"""The ids of a text do not depend on which of the supported versions of the tokenizers package is installed."""

from __future__ import annotations

import hashlib

import pytest

from hart_edge.reference.presets import SHIPPED_MODEL
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer

# Of versions 0.22.2, 0.23.1 and 0.23.3, whose tables agree in every character. 0.22.1 and older have an older Unicode.
IDS = "6cae03bb7695762b072f6467fd88376afd580ef730a82ff58ce9bbc91bccdb9c"


@pytest.mark.long
def test_every_letter_has_the_ids_of_the_supported_versions() -> None:
    """A version that fails here has tables of another version of Unicode.

    Then the tables of the C library must be made again (python -m tests.runtime.native.tokenizer_tables), and
    pyproject.toml and docs/randomness.md must require that version or later.
    """
    definition = (SHIPPED_MODEL / "text_model" / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = PromptTokenizer(definition, length=24, pad_token_id=0, padding_side="right")
    digest = hashlib.sha256()
    for start in range(0, 0x30000, 8):  # planes 0 to 2: all letters
        if not 0xD800 <= start < 0xE000:  # surrogates are no characters
            characters = map(chr, range(start, start + 8))
            digest.update(repr(tokenizer.ids("".join(f"{c}b1 A\u0301{c}" for c in characters))).encode())
    assert digest.hexdigest() == IDS
