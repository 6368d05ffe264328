"""Prompt ids -> context: the Hugging Face text model of a checkpoint's text_model/ folder.

First link of the chain. Ids come padded from runtime/prompt_tokenizer.py; the fixed instruction of
text_model/prompt.txt is read in front of every prompt, and only the prompt's positions are kept. Source: HART's
published pipeline.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from hart_edge.bundle.files import path_in_text
from hart_edge.errors import CheckpointError
from hart_edge.reference.checkpoint import read_json, reads_checkpoint


class TextModel(nn.Module):
    """A text model with its fixed instruction. T prompt positions, D hidden channels."""

    model: Any  # of Hugging Face, whose attributes torch's types do not know
    instruction: Tensor  # (1, number of tokens) int64

    def __init__(self, model: nn.Module, instruction_ids: list[int], pad_token_id: int) -> None:
        super().__init__()
        self.model, self.pad_token_id = model, pad_token_id
        self.register_buffer("instruction", torch.tensor([instruction_ids], dtype=torch.int64))

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


class PromptEncoder(Protocol):
    """What the text model needs of its tokenizer."""

    pad_token_id: int

    def ids(self, text: str) -> list[int]: ...


E = TypeVar("E", bound=PromptEncoder, covariant=True)


class TokenizerMaker(Protocol[E]):
    """Makes a tokenizer of what text_model/ says of it, such as PromptTokenizer.padding_with.

    definition: the text of tokenizer.json; length: tokens that it pads to; pad_token: None where the folder names none;
    padding_side: left or right.
    """

    def __call__(self, definition: str, *, length: int, pad_token: str | None, padding_side: str) -> E: ...


@reads_checkpoint
def load_text_model(folder: str | Path, context_tokens: int, make_tokenizer: TokenizerMaker[E]) -> tuple[TextModel, E]:
    """Read text_model/ of a checkpoint: the model in float32, and the tokenizer that make_tokenizer makes.

    context_tokens: what prompts are padded to. Nothing is downloaded. Raises CheckpointError when the folder is
    incomplete, and what make_tokenizer raises.
    """
    import transformers  # slow to import, and only this needs it

    folder = Path(folder)
    tokenizer_path = folder / "tokenizer.json"
    if not tokenizer_path.is_file():
        raise CheckpointError(f"{tokenizer_path}: missing; save the tokenizer with tokenizer.save_pretrained()")
    settings = read_json(folder / "tokenizer_config.json")
    side = settings.get("padding_side", "right")
    if side not in ("left", "right"):
        raise CheckpointError(f"{folder}/tokenizer_config.json: padding_side: expected left or right, found {side!r}")
    pad_token = settings.get("pad_token")
    if isinstance(pad_token, dict):  # older files keep the token's flags beside its text
        pad_token = pad_token.get("content")
    definition = tokenizer_path.read_text(encoding="utf-8")
    tokenizer = make_tokenizer(definition, length=context_tokens, pad_token=pad_token, padding_side=side)
    prompt_file = folder / "prompt.txt"
    instruction = tokenizer.ids(prompt_file.read_text(encoding="utf-8")) if prompt_file.is_file() else []
    bars = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()  # the caller shows its own progress
    try:
        with path_in_text(folder) as path:
            model = transformers.AutoModel.from_pretrained(
                path, local_files_only=True, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
            )
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{folder}: not a readable Hugging Face text model ({reason}); copy it again") from None
    finally:
        if bars:
            transformers.utils.logging.enable_progress_bar()
    return TextModel(model.eval().requires_grad_(False), instruction, tokenizer.pad_token_id), tokenizer
