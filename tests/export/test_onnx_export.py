"""The ONNX files of fp32 bundles against the torch modules, at other shapes than the traced ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from hart_edge.bundle.manifest import Dtype, Target, TensorSpec
from hart_edge.bundle.settings import Speed
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import BuildError
from hart_edge.export.graph_module import GraphModule
from hart_edge.export.graphs import build_graphs
from hart_edge.export.onnx_export import EXAMPLE_SIZES, OPSET, export_graph
from hart_edge.export.text_graph import TextModelGraph
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.presets import SHIPPED_MODEL
from hart_edge.reference.quantizer import downsample_matrix, upsample_matrix
from hart_edge.reference.text_model import load_text_model
from hart_edge.reference.transformer import RMSNorm, scale_coordinates
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer
from tests.conftest import GOLDEN

ROOT = Path(__file__).parents[2]
DTYPES = {
    onnx.TensorProto.FLOAT: Dtype.FLOAT32,
    onnx.TensorProto.INT64: Dtype.INT64,
    onnx.TensorProto.UINT8: Dtype.UINT8,
    onnx.TensorProto.BOOL: Dtype.BOOL,
}
# Values of each graph's symbols. None but S is that of the trace: B 4, S 1, U 2, k 10, n 9, t 11, N 14, M 7, p 3, q 5.
SIZES = {
    "context": [{"B": 1}, {"B": 3}],
    "transformer": [  # the first two as at scale 0
        {"B": 1, "U": 0, "n": 12, "N": 0, "M": 1},
        {"B": 3, "U": 0, "n": 5, "N": 0, "M": 1},
        {"B": 3, "U": 3, "n": 7, "N": 5, "M": 1},
        {"B": 1, "U": 1, "n": 20, "N": 1, "M": 6},
    ],
    "tokens": [
        {"B": 1, "n": 1, "t": 1},
        {"B": 1, "n": 1, "t": 12},
        {"B": 3, "n": 4, "t": 4},
        {"B": 3, "n": 4, "t": 4, "U": 0},
    ],
    "latent": [
        {"B": 1, "k": 1, "p": 1, "q": 2},
        {"B": 3, "k": 4, "p": 2, "q": 3, "S": 3},
        {"B": 2, "k": 6, "p": 3, "q": 4},
    ],
    "embed": [{"B": 1, "n": 1}, {"B": 3, "n": 16}, {"B": 3, "n": 4, "U": 0}],
    "select": [{"B": 1, "k": 1, "p": 2}, {"B": 3, "k": 12, "p": 4}],
    "residual": [{"B": 1, "k": 16}, {"B": 3, "k": 12, "S": 3}, {"B": 1, "k": 16, "U": 0}],
    "decoder": [{"B": 1}, {"B": 3}],
    "encoder": [{"B": 1}, {"B": 3}],
}


@pytest.fixture(scope="module")
def flavour(golden_bundle: Path) -> tuple[Path, Mapping[str, GraphModule]]:
    """The folder of graphs of a golden checkpoint at fp32, and its graph modules."""
    model = load_checkpoint(GOLDEN / golden_bundle.name.removesuffix("-fp32")).model
    return golden_bundle / "graphs", build_graphs(model, None, tuple(Speed))


@pytest.fixture(scope="module")
def text_graph() -> GraphModule:
    config = load_checkpoint(SHIPPED_MODEL).model.config
    text_model, _ = load_text_model(SHIPPED_MODEL / "text_model", config.context_token, PromptTokenizer.padding_with)
    return TextModelGraph(text_model, config.context_token, config.context_dim).eval()


def make_inputs(graph: GraphModule, sizes: Mapping[str, int], generator: torch.Generator) -> list[Tensor]:
    """Random inputs that are valid for a graph."""
    null = sizes["B"] if graph.name in ("tokens", "embed", "residual") else 0  # they have both branches as a rule
    known = {"U": null} | sizes
    known |= {"2B": 2 * sizes["B"], "R": sizes["B"] + known["U"], "S": sizes.get("S", 1)}
    known["n"] = sizes.get("n", sizes.get("p", 0) ** 2)

    def make(tensor: TensorSpec) -> Tensor:
        shape = [known[size] if isinstance(size, str) else size for size in tensor.shape]
        exact = {
            "uniform": lambda: torch.rand(shape, generator=generator).clamp(1e-6, 1 - 1e-6),
            "positions": lambda: torch.arange(known.get("t", 0))[-known["n"] :],
            "cfg_scale": lambda: torch.tensor([3.0]),
            "guidance_ratio": lambda: torch.tensor([0.4]),
            "temperature": lambda: torch.tensor([0.2]),
            "top_k": lambda: torch.tensor([17]),
            "top_p": lambda: torch.tensor([0.9]),
            "smooth": lambda: torch.tensor([True]),
            "phi": lambda: torch.tensor([2]),
            "context_mask": lambda: torch.arange(shape[1]).expand(shape) < torch.arange(2, 2 + shape[0])[:, None],
            "coordinates": lambda: scale_coordinates(4, 7)[: known["n"]],
            "last_position": lambda: torch.full(shape, 3.0),
            "upsample": lambda: upsample_matrix(shape[1], shape[0]),
            "downsample": lambda: downsample_matrix(shape[0], shape[1]),
            "input_ids": lambda: torch.randint(0, 50, shape, generator=generator),
            "ranks": lambda: torch.arange(known["k"]),
            "sources": lambda: torch.randint(0, known["k"] + 1, shape, generator=generator),
            "image": lambda: torch.rand(shape, generator=generator) * 2 - 1,
        }
        return exact.get(tensor.name, lambda: torch.randn(shape, generator=generator))()

    return [make(tensor) for tensor in graph.inputs]


def check_against_torch(graph: GraphModule, path: Path, all_sizes: list[dict[str, int]]) -> None:
    session = REGISTRY.library(Target.CPU).open(path)
    generator = torch.Generator().manual_seed(1)
    for sizes in all_sizes:
        inputs = make_inputs(graph, sizes, generator)
        with torch.no_grad():
            expected = graph(*inputs)
        found = session.run({spec.name: x.numpy() for spec, x in zip(graph.inputs, inputs, strict=True)})
        for spec, reference in zip(graph.outputs, expected, strict=True):
            got, wanted = found[spec.name], reference.numpy()
            where = f"{graph.name} {spec.name} {sizes}"
            assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype), where
            if spec.dtype == "float32":
                magnitude = float(np.abs(wanted).max(initial=1.0))
                assert np.abs(got - wanted).max(initial=0.0) <= 1e-4 * magnitude, where
            elif spec.dtype == "uint8":
                assert np.abs(got.astype(int) - wanted).max() <= 1, where
            else:
                assert np.array_equal(got, wanted), where


def test_other_shapes_than_the_traced_ones(flavour: tuple[Path, Mapping[str, GraphModule]]) -> None:
    folder, graphs = flavour
    assert set(graphs) == set(SIZES)
    for name, graph in graphs.items():
        for sizes in SIZES[name]:
            assert all(EXAMPLE_SIZES[symbol] != size for symbol, size in sizes.items() if symbol not in "pn"), sizes
        check_against_torch(graph, folder / f"{name}.onnx", SIZES[name])


def test_text_model_at_other_batches(fp32_bundle: Path, text_graph: GraphModule) -> None:
    check_against_torch(text_graph, fp32_bundle / "graphs" / "text_model.onnx", [{"B": 1}, {"B": 3}])


def describe(values: list[onnx.ValueInfoProto]) -> list[tuple[str, Dtype, tuple[int | str, ...]]]:
    return [
        (
            value.name,
            DTYPES[value.type.tensor_type.elem_type],
            tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in values
    ]


def check_file(graph: GraphModule, path: Path) -> onnx.ModelProto:
    """Check the interface, operators and opset, and that the file does not mention this machine."""
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    for values, specification in ((model.graph.input, graph.inputs), (model.graph.output, graph.outputs)):
        assert describe(list(values)) == [(spec.name, spec.dtype, spec.shape) for spec in specification]
    assert model.graph.name == graph.name
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not model.functions and not model.metadata_props
    for node in model.graph.node:
        assert not node.doc_string and not node.metadata_props, node.name
    data = path.read_bytes()
    for trace in (str(ROOT), "site-packages", ".py", str(Path.home()) + "/", "pkg.torch"):
        assert trace.encode() not in data, trace
    return model


def test_files(flavour: tuple[Path, Mapping[str, GraphModule]]) -> None:
    folder, graphs = flavour
    for name, graph in graphs.items():
        check_file(graph, folder / f"{name}.onnx")


def test_text_model_file(fp32_bundle: Path, text_graph: GraphModule) -> None:
    check_file(text_graph, fp32_bundle / "graphs" / "text_model.onnx")


def test_transformer_weights_exist_once(flavour: tuple[Path, Mapping[str, GraphModule]]) -> None:
    """The weights of the blocks are in the graph of the transformer, and in no other."""
    folder, graphs = flavour
    blocks = {name: p.numpy() for name, p in graphs["transformer"].transformer.blocks.named_parameters()}
    modulation = {name for name in blocks if "modulation" in name or "scale_shift" in name}  # in the context graph
    held = {path.stem: onnx.load(path).graph.initializer for path in sorted(folder.glob("*.onnx"))}
    assert set(held) == set(graphs)
    total = sum(len(tensor.raw_data) for tensor in held["transformer"])
    own = sum(value.nbytes for name, value in blocks.items() if name not in modulation)
    assert own <= total <= own * 1.05 + 4096  # plus some shapes and constants
    large = {name: value for name, value in blocks.items() if value.size >= 1024}
    names = {f"transformer.blocks.{name}.T" for name in large if name not in modulation}
    assert names <= {tensor.name for tensor in held["transformer"]}  # messages use the names of the reference
    assert len(large) >= 5 * len(graphs["transformer"].transformer.blocks)
    for name, value in large.items():
        homes = [
            graph
            for graph, tensors in held.items()
            for tensor in tensors
            if np.prod(tensor.dims) == value.size and contains(numpy_helper.to_array(tensor), value)
        ]
        assert homes == ["context" if name in modulation else "transformer"], name


def contains(found: np.ndarray, value: np.ndarray) -> bool:
    """Whether a tensor is a weight or its transpose."""
    return any(np.array_equal(found.reshape(-1), form.reshape(-1)) for form in (value, value.T))


@pytest.mark.long
def test_a_graph_that_cannot_be_traced_is_named(tmp_path: Path) -> None:
    class Branching(GraphModule):
        name = "branching"
        inputs = (TensorSpec("x", Dtype.FLOAT32, ("B", 2)),)
        outputs = (TensorSpec("y", Dtype.FLOAT32, ("B", 2)),)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return (x if x.sum() > 0 else -x,)

    with pytest.raises(BuildError, match=r"^branching: torch could not trace this graph \(.+\); please report it$"):
        export_graph(Branching().eval(), tmp_path / "branching.onnx")


def test_a_normalisation_divides_by_its_root(tmp_path: Path) -> None:
    """As ONNX Runtime wants it to make one node of seven."""

    class Normalised(GraphModule):
        name = "normalised"
        inputs = outputs = (TensorSpec("x", Dtype.FLOAT32, ("B", 8)),)

        def __init__(self) -> None:
            super().__init__()
            self.norm = RMSNorm(8, 1e-6)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(x)

    graph = Normalised().eval()
    export_graph(graph, tmp_path / "graph.onnx")
    operators = [node.op_type for node in onnx.load(tmp_path / "graph.onnx").graph.node]
    assert "Div" in operators and "Reciprocal" not in operators
    x = torch.randn(3, 8)
    found = REGISTRY.library(Target.CPU).open(tmp_path / "graph.onnx").run({"x": x.numpy()})
    (y,) = found.values()
    assert np.allclose(y, graph(x).detach(), atol=1e-6)
