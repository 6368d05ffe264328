"""The proof that graphs hold the checkpoint's weights finds one number that is another."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from hart_edge.errors import BuildError
from hart_edge.export.stages.prove import prove
from hart_edge.export.stages.read import Source, read_source
from hart_edge.export.tools import Tools
from tests.export.small_checkpoint import CHECKPOINT

SILENT: Any = SimpleNamespace(step=lambda label: nullcontext())
Prove = Callable[[], None]


@pytest.fixture
def source() -> Source:
    return read_source(CHECKPOINT)


@pytest.fixture
def proved(source: Source, tools: Tools, tmp_path: Path) -> Prove:
    """The stage, on graphs that a test may change."""
    for name, graph in source.graphs.items():
        tools.trace(graph, tmp_path / f"{name}.onnx")
    paths = {name: tmp_path / f"{name}.onnx" for name in source.graphs}
    traced: Any = SimpleNamespace(source=source, paths=paths)
    return lambda: prove(SILENT, traced)


def test_traced_graphs_hold_the_weights(proved: Prove) -> None:
    proved()


def test_a_number_in_a_graph(proved: Prove, tmp_path: Path) -> None:
    model = onnx.load(tmp_path / "transformer.onnx", load_external_data=False)
    name = "transformer.blocks.1.mlp.down.weight.T"
    (tensor,) = (each for each in model.graph.initializer if each.name == name)
    place = {pair.key: pair.value for pair in tensor.external_data}
    with (tmp_path / place["location"]).open("r+b") as file:
        file.seek(int(place.get("offset", 0)) + 40)
        file.write(np.float32(0.5).tobytes())
    with pytest.raises(BuildError, match=f"graph transformer, tensor {name}: expected the checkpoint's numbers, found"):
        proved()


def test_a_number_in_the_reference(proved: Prove, source: Source) -> None:
    with torch.no_grad():
        source.model.autoencoder.decoder.conv_in.weight[0, 0, 0, 0] += 1
    with pytest.raises(
        BuildError, match=r"graph reference, tensor autoencoder\.decoder\.conv_in\.weight: expected the"
    ):
        proved()


def test_a_weight_that_no_file_has(tools: Tools, tmp_path: Path) -> None:
    """What a forgiving loader fills with random numbers: the module has it, and the files do not."""
    source = read_source(CHECKPOINT)
    folder = tmp_path / "graphs"
    folder.mkdir()
    for name, graph in source.graphs.items():
        tools.trace(graph, folder / f"{name}.onnx")

    def weights() -> Any:
        return (each for each in source.weights() if each[0] != "transformer.blocks.0.mlp.up.weight")

    traced: Any = SimpleNamespace(
        source=SimpleNamespace(graphs=source.graphs, weights=weights),
        paths={name: folder / f"{name}.onnx" for name in source.graphs},
    )
    with pytest.raises(BuildError, match=r"found transformer\.blocks\.0\.mlp\.up\.weight\.T, which no file has"):
        prove(SILENT, traced)


def test_a_weight_that_no_graph_has(proved: Prove, source: Source, tmp_path: Path) -> None:
    shutil.copy(tmp_path / "embed.onnx", tmp_path / "residual.onnx")
    with pytest.raises(
        BuildError, match=r"residual\..+: expected this tensor of the checkpoint in a graph, found it in"
    ):
        proved()
