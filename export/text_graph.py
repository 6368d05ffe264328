"""The text model as a graph: prompt ids -> context.

With an instruction the traced graph holds its keys and values as constants and runs the prompt's tokens alone; the
reference makes the whole pass, so that comparing the two proves that they are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hart_edge.export.graph_module import GraphModule, spec
from hart_edge.reference.text_model import InstructedTextModel, TextModel, has_constant_instruction


class TextModelGraph(GraphModule):
    name = "text_model"

    def __init__(self, text_model: TextModel, context_tokens: int, context_dim: int) -> None:
        super().__init__()
        self.text_model = text_model
        self.instructed = InstructedTextModel(text_model) if has_constant_instruction(text_model) else None
        self.inputs = (spec("input_ids", "B", context_tokens, dtype="int64"),)
        self.outputs = (
            spec("context", "B", context_tokens, context_dim),
            spec("context_mask", "B", context_tokens, dtype="bool"),
        )

    def forward(self, input_ids: Tensor) -> tuple[Tensor, ...]:
        if self.instructed is not None and torch.compiler.is_exporting():
            return tuple(self.instructed(input_ids))
        return tuple(self.text_model(input_ids))
