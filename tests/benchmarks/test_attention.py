"""Both graphs of benchmarks.attention compute the attention of the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.attention import FORMS, AttentionGraph, main, shape_of
from hart_edge.bundle.manifest import Target
from hart_edge.engines.registry import REGISTRY
from hart_edge.export.onnx_export import export_graph
from hart_edge.reference.config import TransformerConfig
from hart_edge.reference.presets import configs

CONFIG = TransformerConfig((1, 2, 3), 32, 2, 2, 6, 10, diff_width=12, diff_depth=1, num_sampling_steps=2)


@pytest.mark.long
def test_both_forms_of_attention_agree(tmp_path: Path) -> None:
    assert shape_of(CONFIG) == (9, 6 + 4 + 9)
    generator = np.random.default_rng(0)
    feeds = {name: generator.standard_normal((19, 1, 2, 16), np.float32) for name in ("key", "value")}
    feeds = {"query": generator.standard_normal((1, 2, 9, 16), np.float32)} | feeds
    expected = AttentionGraph(CONFIG, fused=False)(*map(torch.from_numpy, feeds.values())).numpy()
    for form, fused in FORMS.items():
        export_graph(AttentionGraph(CONFIG, fused=fused).eval(), tmp_path / "graph.onnx")
        found = REGISTRY.library(Target.CPU).open(tmp_path / "graph.onnx").run(feeds)["found"]
        np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0, err_msg=form)


@pytest.mark.long
def test_the_row_of_a_measurement(capsys: pytest.CaptureFixture[str]) -> None:
    main(["tiny", "--form", "one operator", "--rounds", "1"], lambda preset: (CONFIG, configs("hart-0.7b-256")[1]))
    assert capsys.readouterr().out.startswith("| tiny | 9 | 19 | one operator | ")
