"""Prompt -> token ids: a tokenizer.json, padded to the context's length.

First step on the device. Source of the padding rules: HART's published pipeline (pad to T, the tokenizer's own side).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.verify import Bundle
from hart_edge.errors import BundleError, InputError


class PromptTruncatedWarning(UserWarning):
    """A prompt was longer than the context; its first tokens were kept."""


class PromptTokenizer:
    """A tokenizer.json with the padding that the transformer expects."""

    def __init__(
        self, definition: str, *, length: int, pad_token_id: int, padding_side: str, embeddings: int | None = None
    ) -> None:
        """definition: text of a tokenizer.json; length: T, tokens of the context; embeddings: how many ids the text
        model knows, None where that is not told."""
        self._tokenizer = _parse(definition)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.length, self.pad_token_id, self.padding_side = length, pad_token_id, padding_side
        self.embeddings = embeddings

    @classmethod
    def padding_with(cls, definition: str, *, length: int, pad_token: str | None, padding_side: str) -> PromptTokenizer:
        """A tokenizer whose padding token is known by its text, as Hugging Face's tokenizer_config.json has it."""
        pad_token_id = cls.token_id(definition, pad_token)
        return cls(definition, length=length, pad_token_id=pad_token_id, padding_side=padding_side)

    @staticmethod
    def token_id(definition: str, token: str | None) -> int:
        """Id of a special token of a tokenizer.json."""
        found = _parse(definition).token_to_id(token) if token is not None else None
        if found is None:
            raise BundleError(
                f"tokenizer: expected a padding token, found {token!r}; set pad_token in tokenizer_config.json"
            )
        return int(found)

    def ids(self, text: str) -> list[int]:
        """Ids of a text, neither padded nor cut."""
        return list(self._tokenizer.encode(text).ids)

    def vocabulary(self) -> Mapping[str, int]:
        """Every token's id, those that were added later too."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))

    def encode(self, prompt: object) -> NDArray[np.int64]:
        """Ids of a prompt: (1, T) int64, padded on padding_side.

        A prompt of more than T tokens keeps its first T and warns with PromptTruncatedWarning. Raises InputError
        when the prompt is not a string, holds nothing to draw, or a token that the text model does not know.
        """
        if not isinstance(prompt, str):
            raise InputError(f"prompt: expected a string, found {type(prompt).__name__}; pass the text to draw")
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(f"prompt: not valid Unicode ({error.reason}); remove the lone surrogate") from None
        if not prompt.strip():
            raise InputError("prompt: expected words, found an empty string; say what to draw, such as 'a red heart'")
        ids = self.ids(prompt)
        if not ids or all(i == self.pad_token_id for i in ids):
            raise InputError(f"prompt: {prompt!r} has no token of this model's tokenizer; use words it knows")
        if len(ids) > self.length:
            warnings.warn(
                f"the prompt has {len(ids)} tokens, the model reads {self.length}: the first {self.length} are kept",
                PromptTruncatedWarning,
                stacklevel=2,
            )
            ids = ids[: self.length]
        if self.embeddings is not None and max(ids) >= self.embeddings:
            raise InputError(
                f"prompt: expected token ids below {self.embeddings}, which the text model knows, found {max(ids)}; "
                "use other words, or rebuild the bundle with the text model's own tokenizer"
            )
        padded = np.full((1, self.length), self.pad_token_id, np.int64)
        start = self.length - len(ids) if self.padding_side == "left" else 0
        padded[0, start : start + len(ids)] = ids
        return padded


def tokenizer_of(bundle: Bundle) -> PromptTokenizer | None:
    """The tokenizer of a bundle; None for one that takes a context array. Raises BundleError."""
    found = bundle.manifest.tokenizer
    if found is None:
        return None
    with bundle.opened(found.file) as path:
        definition = path.read_text(encoding="utf-8")
    return PromptTokenizer(
        definition,
        length=bundle.manifest.context_tokens,
        pad_token_id=found.pad_token_id,
        padding_side=found.padding_side,
        embeddings=found.embeddings,
    )


def _parse(definition: str) -> Any:
    from tokenizers import Tokenizer  # slow to import; a context-array bundle never needs it

    try:
        return Tokenizer.from_str(definition)
    except Exception as error:  # the library raises plain Exception
        raise BundleError(f"tokenizer.json: not a tokenizers file ({error}); copy it again") from None
