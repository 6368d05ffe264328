"""Prompt ids -> context: the Hugging Face text model of a checkpoint's text_model/ folder.

First link of the chain. Ids come padded from runtime/prompt_tokenizer.py; the fixed instruction of
text_model/prompt.txt is read in front of every prompt, and only the prompt's positions are kept. Source: HART's
published pipeline. text_weights.py reads the network.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from hart_edge.errors import CheckpointError
from hart_edge.reference.checkpoint import reads_checkpoint
from hart_edge.reference.instruction import INSTRUCTION_FILE, read_instruction
from hart_edge.reference.text_weights import TOKENIZER_FILE, TextWeights, read_network
from hart_edge.reference.weight_files import read_json, require_fetched

PROBE = 5  # tokens that show whether a model is causal


class TextModel(nn.Module):
    """A text model with its fixed instruction. T prompt positions, D hidden channels.

    instruction_text: what the ids were made of; weights: its files, and notes: what a user should know of how they were
    read; both empty for a model that was made here.
    """

    model: Any  # of Hugging Face, whose attributes torch's types do not know
    instruction: Tensor  # (1, number of tokens) int64

    def __init__(
        self,
        model: nn.Module,
        instruction_ids: list[int],
        pad_token_id: int,
        *,
        instruction_text: str = "",
        weights: TextWeights | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.model, self.pad_token_id = model, pad_token_id
        self.instruction_text, self.weights, self.notes = instruction_text, weights, notes
        self.register_buffer("instruction", torch.tensor([instruction_ids], dtype=torch.int64))

    @property
    def embeddings(self) -> int:
        """Rows of the embedding table: token ids are below it."""
        return int(self.model.get_input_embeddings().num_embeddings)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """input_ids: (B, T) int64, padded -> context (B, T, D) float32, context_mask (B, T) bool"""
        mask = input_ids != self.pad_token_id
        length = self.instruction.shape[1]
        if length:
            instruction = self.instruction.expand(input_ids.shape[0], -1)
            input_ids = torch.cat([instruction, input_ids], 1)
            full_mask = torch.cat([torch.ones_like(instruction, dtype=torch.bool), mask], 1)
        else:
            full_mask = mask
        hidden = self.model(input_ids=input_ids, attention_mask=full_mask.long(), use_cache=False).last_hidden_state
        return hidden[:, length:].float(), mask


class InstructedTextModel(nn.Module):
    """The same with the instruction as a constant: of a causal model its keys and values depend on nothing behind it.

    They are computed once, here, and forward() runs the prompt's tokens alone. I tokens of the instruction.
    """

    model: Any

    def __init__(self, text_model: TextModel) -> None:
        super().__init__()
        self.model, self.pad_token_id = text_model.model, text_model.pad_token_id
        self.length = text_model.instruction.shape[1]
        self.names: list[tuple[str, str]] = []  # of the buffers, keys and values of every layer
        for index, pair in enumerate(keys_and_values(self.model, text_model.instruction)):
            self.names.append((f"instruction_key_{index}", f"instruction_value_{index}"))
            for name, tensor in zip(self.names[-1], pair, strict=True):
                self.register_buffer(name, tensor)

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Arguments and results of TextModel.forward()."""
        from transformers import DynamicCache

        mask, cache, batch = input_ids != self.pad_token_id, DynamicCache(), input_ids.shape[0]
        for index, names in enumerate(self.names):
            key, value = (getattr(self, name) for name in names)  # (1, heads, I, d) each
            cache.update(key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1), index)
        seen = torch.cat([torch.ones_like(input_ids[:, :1]).expand(-1, self.length), mask.long()], 1)
        past = {cache_name(self.model): cache}
        hidden = self.model(input_ids=input_ids, attention_mask=seen, use_cache=False, **past).last_hidden_state
        return hidden.float(), mask


def cache_name(model: nn.Module) -> str:
    """What a model calls the keys and values of earlier tokens; "" for one that takes none."""
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in ("cache", "past_key_values") if name in parameters), "")


@torch.no_grad()
def keys_and_values(model: Any, ids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of every layer after these tokens: ids (1, I) -> keys and values, (1, heads, I, d) each."""
    from transformers import DynamicCache

    cache: Any = DynamicCache()
    model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **{cache_name(model): cache})
    return [(layer.keys.contiguous(), layer.values.contiguous()) for layer in cache.layers]


@torch.no_grad()
def has_constant_instruction(text_model: TextModel) -> bool:
    """Whether the instruction can be a constant: there is one, and the model lets no token see a later one, nor forgets
    early ones, as a sliding window does."""
    model, ids = text_model.model, text_model.instruction[:, :PROBE]
    windowed = set(getattr(model.config, "layer_types", None) or ["full_attention"]) != {"full_attention"}
    if not ids.shape[1] or not cache_name(model) or windowed:
        return False
    longer, shorter = torch.cat([ids, ids], 1), ids
    seen, alone = (
        model(input_ids=each, attention_mask=torch.ones_like(each), use_cache=False).last_hidden_state
        for each in (longer, shorter)
    )
    return bool(torch.allclose(seen[:, : ids.shape[1]], alone, rtol=1e-3, atol=1e-3))


class PromptEncoder(Protocol):
    """What the text model needs of its tokenizer."""

    pad_token_id: int

    def ids(self, text: str) -> list[int]: ...

    def vocabulary(self) -> Mapping[str, int]: ...


E = TypeVar("E", bound=PromptEncoder, covariant=True)


class TokenizerMaker(Protocol[E]):
    """Makes a tokenizer of what text_model/ says of it, such as PromptTokenizer.padding_with.

    definition: the text of tokenizer.json; length: tokens that it pads to; pad_token: None where the folder names none;
    padding_side: left or right.
    """

    def __call__(self, definition: str, *, length: int, pad_token: str | None, padding_side: str) -> E: ...


@reads_checkpoint
def load_text_model(
    folder: str | Path, context_tokens: int, make_tokenizer: TokenizerMaker[E], instruction: str | None = None
) -> tuple[TextModel, E]:
    """Read text_model/ of a checkpoint: the model in float32, and the tokenizer that make_tokenizer makes.

    context_tokens: what prompts are padded to; instruction: the text in front of every prompt, "" for none, None for
    that of the folder's prompt.txt. Nothing is downloaded. Raises CheckpointError when the folder is incomplete or does
    not fit its config.json, and what make_tokenizer raises.
    """
    folder = Path(folder)
    tokenizer = _read_tokenizer(folder, context_tokens, make_tokenizer)
    if instruction is None:
        file = folder / INSTRUCTION_FILE
        instruction = read_instruction(file) if file.is_file() else ""
    network = read_network(folder)
    notes = network.notes
    ids = tokenizer.ids(instruction) if instruction else []
    if len(ids) > context_tokens:  # as the published pipeline cuts it
        notes += (f"the instruction has {len(ids)} tokens, and its first {context_tokens} are kept",)
        ids = ids[:context_tokens]
    model = TextModel(
        network.model,
        ids,
        tokenizer.pad_token_id,
        instruction_text=instruction,
        weights=network.weights,
        notes=notes,
    )
    _check_ids(folder, tokenizer.vocabulary(), model.embeddings)
    return model, tokenizer


def _read_tokenizer(folder: Path, context_tokens: int, make_tokenizer: TokenizerMaker[E]) -> E:
    path = folder / TOKENIZER_FILE
    require_fetched(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; save the tokenizer with tokenizer.save_pretrained()")
    settings = read_json(folder / "tokenizer_config.json")
    side = settings.get("padding_side", "right")
    if side not in ("left", "right"):
        raise CheckpointError(f"{folder}/tokenizer_config.json: padding_side: expected left or right, found {side!r}")
    pad_token = settings.get("pad_token")
    if isinstance(pad_token, dict):  # older files keep the token's flags beside its text
        pad_token = pad_token.get("content")
    definition = path.read_text(encoding="utf-8")
    return make_tokenizer(definition, length=context_tokens, pad_token=pad_token, padding_side=side)


def _check_ids(folder: Path, vocabulary: Mapping[str, int], embeddings: int) -> None:
    """Refuse a tokenizer with ids that the text model has no row for."""
    beyond = sorted((id_, token) for token, id_ in vocabulary.items() if id_ >= embeddings)
    if beyond:
        id_, token = beyond[0]
        raise CheckpointError(
            f"{folder / TOKENIZER_FILE}: expected ids below {embeddings}, the rows of the text model's embedding "
            f"table, found {id_} for {token!r} ({len(beyond)} are beyond); use the tokenizer that the model was "
            "trained with, or resize its embeddings and train them"
        )
