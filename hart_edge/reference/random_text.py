"""A text model of a published shape without its weights, so that the whole of a preset can be measured.

In: a shape. Out: a TextModel with seeded random weights, and a tokenizer that makes ids for it.
"""

from __future__ import annotations

import torch

from hart_edge.reference.presets import SHIPPED_MODEL, TextShape
from hart_edge.reference.text_model import E, TextModel, TokenizerMaker
from hart_edge.reference.text_weights import TOKENIZER_FILE, make_network

SEED = 2
TOKENIZER = SHIPPED_MODEL / "text_model" / TOKENIZER_FILE  # its ids are below those of any published vocabulary
STAND_IN = "a picture of "  # repeated, where no instruction is given


def random_text_model(
    shape: TextShape, width: int, context_tokens: int, make_tokenizer: TokenizerMaker[E], instruction: str | None
) -> tuple[TextModel, E]:
    """A text model of a shape with seeded random weights, and the shipped model's tokenizer, whose ids it knows.

    width: channels; instruction: "" for none, None for a stand-in of the published length.
    """
    from transformers import Qwen2Config

    config = Qwen2Config(
        vocab_size=shape.vocabulary,
        hidden_size=width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        tie_word_embeddings=True,
    )
    network, generator = make_network("the preset", config), torch.Generator().manual_seed(SEED)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.02, generator=generator)
        else:
            parameter.data.fill_(0.0 if name.endswith("bias") else 1.0)
    definition = TOKENIZER.read_text("utf-8")
    tokenizer = make_tokenizer(definition, length=context_tokens, pad_token="<pad>", padding_side="right")
    text = STAND_IN * shape.instruction_tokens if instruction is None else instruction
    ids = tokenizer.ids(text)[: shape.instruction_tokens if instruction is None else context_tokens] if text else []
    model = TextModel(network.requires_grad_(False), ids, tokenizer.pad_token_id, instruction_text=text)
    return model, tokenizer
