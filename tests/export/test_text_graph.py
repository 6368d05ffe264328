"""The instruction as a constant of the text model's graph: the same contexts as the whole pass, on either side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from transformers import BertConfig, BertModel

from hart_edge.export.onnx_export import export_graph
from hart_edge.export.text_graph import TextModelGraph
from hart_edge.reference.presets import SHIPPED_MODEL
from hart_edge.reference.text_model import TextModel, has_constant_instruction, load_text_model
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer

INSTRUCTION = "draw a small picture of"
PROMPTS = ("red heart", "man astronaut with a dog")


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_same_contexts_as_the_whole_pass(tmp_path: Path, side: str) -> None:
    folder = Path(shutil.copytree(SHIPPED_MODEL / "text_model", tmp_path / "text_model"))
    settings = json.loads((folder / "tokenizer_config.json").read_text()) | {"padding_side": side}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model, tokenizer = load_text_model(folder, 24, PromptTokenizer.padding_with, INSTRUCTION)
    assert model.instruction.shape == (1, len(tokenizer.ids(INSTRUCTION)))
    graph = TextModelGraph(model, 24, 192).eval()
    ids = np.concatenate([tokenizer.encode(prompt) for prompt in PROMPTS])
    with torch.no_grad():
        expected, mask = model(torch.from_numpy(ids))
        assert torch.equal(graph(torch.from_numpy(ids))[0], expected)  # the reference makes the whole pass
        assert graph.instructed is not None
        torch.testing.assert_close(graph.instructed(torch.from_numpy(ids))[0], expected, atol=1e-4, rtol=1e-5)
    export_graph(graph, tmp_path / "text_model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "text_model.onnx"))
    assert [each.shape for each in session.get_inputs()] == [["B", 24]]
    found, found_mask = session.run(None, {"input_ids": ids})
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4, rtol=1e-5)
    np.testing.assert_array_equal(found_mask, mask.numpy())
    bare, _ = load_text_model(folder, 24, PromptTokenizer.padding_with, "")
    with torch.no_grad():
        assert (bare(torch.from_numpy(ids))[0] - expected).abs().max() > 0.05  # it says something


def test_models_that_see_ahead_read_the_instruction_every_time() -> None:
    config = BertConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    torch.manual_seed(0)
    model = TextModel(BertModel(config).eval(), [3, 4, 5, 6, 7, 8], 0)
    assert not has_constant_instruction(model)
    graph = TextModelGraph(model, 8, 32)
    assert graph.instructed is None


def test_a_window_forgets_the_instruction(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SHIPPED_MODEL / "text_model", tmp_path / "text_model"))
    changed = {"use_sliding_window": True, "sliding_window": 4, "layer_types": ["sliding_attention"] * 3}
    config = json.loads((folder / "config.json").read_text()) | changed
    (folder / "config.json").write_text(json.dumps(config))
    model, _ = load_text_model(folder, 24, PromptTokenizer.padding_with, INSTRUCTION)
    assert not has_constant_instruction(model)
