"""Blocks that are stamped out from the first equal those of a trace of the whole model."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from hart_edge.bundle.manifest import Target
from hart_edge.engines.registry import REGISTRY
from hart_edge.export.onnx_export import export_graph
from hart_edge.export.token_graphs import TransformerGraph
from tests.export.reference_walk import tiny_model

SIZES = {"R": 4, "2B": 4, "B": 2, "U": 2, "n": 4, "N": 7, "M": 2}


@pytest.mark.long
def test_stamped_blocks_equal_traced_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = TransformerGraph(tiny_model(tmp_path, 3, llm={"depth": 3})).eval()
    export_graph(graph, tmp_path / "stamped.onnx")
    monkeypatch.setattr(graph, "first_block", lambda: None)
    export_graph(graph, tmp_path / "traced.onnx")
    stamped, traced = (onnx.load(tmp_path / f"{name}.onnx") for name in ("stamped", "traced"))
    onnx.checker.check_model(stamped, full_check=True)
    assert list(stamped.graph.input) == list(traced.graph.input)
    assert list(stamped.graph.output) == list(traced.graph.output)
    assert Counter(node.op_type for node in stamped.graph.node) == Counter(node.op_type for node in traced.graph.node)
    generator = np.random.default_rng(0)
    inputs = {
        spec.name: generator.standard_normal([SIZES.get(size, size) for size in spec.shape]).astype(np.float32)
        for spec in graph.inputs
    }
    library = REGISTRY.library(Target.CPU)
    one, other = (library.open(tmp_path / f"{name}.onnx").run(inputs) for name in ("stamped", "traced"))
    assert list(one) == [spec.name for spec in graph.outputs]
    assert all(np.array_equal(one[name], other[name]) for name in one)
