"""The memory that a graph takes while it runs: the bytes of its tensors between the nodes, and of its weights.

In: a graph file and the shapes of a step. Out: a GraphMemory. It follows the nodes in their order as an engine that
frees a tensor after its last use, computes element by element in place where it can, and reshapes without copying.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from hart_edge.bundle.manifest import Manifest
from hart_edge.bundle.plan import Step
from hart_edge.bundle.program import buffer_shape
from hart_edge.bundle.settings import Speed
from hart_edge.engines.onnxruntime.library import load_library

EXTERNAL = TensorProto.EXTERNAL
SMALL = 1024  # bytes; initialisers up to here may be shapes, which inference reads
VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten"})
IN_PLACE = frozenset(
    {"Add", "Sub", "Mul", "Div", "Sigmoid", "Cast", "Exp", "Sqrt", "Neg", "Softmax", "Clip", "Where", "Relu"}
)
MATRICES = frozenset({"MatMul", "Gemm", "FusedMatMul", "MatMulInteger"})
CONVOLUTIONS = {"Conv": 1, "ConvTranspose": 1, "QLinearConv": 3}  # which of their inputs the kernels are
ATTENTION = "Einsum"  # of queries, keys and values (B, tokens, channels)


@dataclass(frozen=True)
class GraphMemory:
    """activations: the most bytes between nodes at a time, without what the caller provides, and with what kernels of
    convolutions take for themselves. matrices, kernels, tables: bytes of weights of matrix products, of convolutions,
    of the rest, as they are held when the graph runs: a table in a file beside the graph, of which rows are gathered,
    stays there. nodes: how many run."""

    activations: int
    matrices: int
    kernels: int
    tables: int
    nodes: int


class Graph:
    """A graph, read without its weights' values."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(str(path), load_external_data=False)
        self.weights = {each.name: _initialiser_size(each) for each in self.model.graph.initializer}
        self._constant = constants(self.model.graph)
        self._mapped = _gathered(self.model.graph)
        _drop_values(self.model.graph)

    def memory(self, resolved: Any, provided: Iterable[str]) -> GraphMemory:
        """resolved: by resolve(). provided: outputs that the caller has memory for."""
        sizes, dims = dict(self.weights), {each.name: list(each.dims) for each in resolved.initializer}
        for value in (*resolved.value_info, *resolved.input, *resolved.output):
            tensor = value.type.tensor_type
            dims[value.name] = [entry.dim_value for entry in tensor.shape.dim]
            sizes[value.name] = _bytes(tensor.elem_type, dims[value.name])
        scratch = {node.output[0]: _scratch(node, dims) for node in resolved.node if node.op_type == "QLinearConv"}
        weights = {"matrices": 0, "kernels": 0, "tables": 0}
        for name, kind in self._uses().items():
            weights[kind] += sizes.get(name, self.weights.get(name, 0))
        nodes = sum(not all(name in self._constant for name in node.output) for node in resolved.node)
        most = _peak(resolved, sizes, scratch, frozenset(provided), self._constant)
        return GraphMemory(most, **weights, nodes=nodes)

    def resolve(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        """The graph with its shapes computed by ONNX Runtime and constants folded. No weight is read for it; weights
        are inputs. Attention stands in it as an Einsum, and a product of 4-bit weights as a MatMul, which have their
        shapes: onnx knows no operator of ONNX Runtime."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        for value in model.graph.input:
            if value.name in shapes:
                kind = value.type.tensor_type.elem_type
                value.CopyFrom(helper.make_tensor_value_info(value.name, kind, shapes[value.name]))
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        del model.graph.value_info[:]
        onnxruntime = load_library()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        with tempfile.TemporaryDirectory() as folder:
            options.optimized_model_filepath = f"{folder}/graph.onnx"
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
            folded = onnx.load(options.optimized_model_filepath)
        for node in folded.graph.node:
            if node.op_type == "MultiHeadAttention":
                node.CopyFrom(helper.make_node(ATTENTION, node.input, node.output, equation="bnq,bmk,bmv->bnv"))
            elif node.op_type == "MatMulNBits":
                sizes = {each.name: each.i for each in node.attribute}
                whole = f"{node.input[1]}:whole"  # the weight as a product would read it, of which nothing is held
                shape = [sizes["K"], sizes["N"]]
                if all(each.name != whole for each in folded.graph.input):
                    folded.graph.input.append(helper.make_tensor_value_info(whole, TensorProto.FLOAT, shape))
                node.CopyFrom(helper.make_node("MatMul", [node.input[0], whole], node.output))
        return onnx.shape_inference.infer_shapes(folded, data_prop=True).graph

    def _uses(self) -> dict[str, str]:
        """What kind of operation reads each constant tensor at run time."""
        uses: dict[str, str] = {}
        for node in self.model.graph.node:
            if all(name in self._constant for name in node.output):
                continue  # computed once, when the graph is loaded; what it makes is held instead
            for name in node.input:
                if name in self._constant and name:
                    kind = (
                        "kernels"
                        if node.op_type in CONVOLUTIONS
                        else "matrices"
                        if node.op_type in MATRICES
                        else "tables"
                    )
                    uses[name] = min(uses.get(name, kind), kind)  # kernels before matrices before tables
        return {name: kind for name, kind in uses.items() if name not in self._mapped}


def steps_of(
    manifest: Manifest, folder: Path, speed: Speed = Speed.EXACT
) -> Iterator[tuple[Step, Graph, dict[str, tuple[int, ...]]]]:
    """Every step of a speed's plan with its graph, which is read once, and the shapes of its inputs for one image.

    folder: the bundle's, which need not be finished.
    """
    graphs: dict[str, Graph] = {}
    plan = manifest.plans[speed]
    for step in plan.steps:
        if step.graph not in graphs:
            file = next(each.file for each in manifest.components if each.name == step.graph)
            graphs[step.graph] = Graph(folder / file)
        shapes = {tensor: buffer_shape(plan.buffers[name], 1) for tensor, name in step.inputs.items()}
        yield step, graphs[step.graph], shapes


def _scratch(node: Any, dims: Mapping[str, list[int]]) -> int:
    """Bytes that the kernel of an INT8 convolution takes for an image: its patches as rows, and sums in INT32."""
    _, channels, *side = dims[node.output[0]]
    kernel = dims[node.input[CONVOLUTIONS[node.op_type]]][1:]  # (In / group, ...)
    patches = math.prod(kernel) if math.prod(kernel[1:]) > 1 else 0
    return math.prod(side) * (patches + 4 * channels)


def _peak(
    graph: Any,
    sizes: Mapping[str, int],
    scratch: Mapping[str, int],
    provided: frozenset[str],
    constant: frozenset[str],
) -> int:
    """The most bytes that are alive at a time. scratch: of nodes while they run, by their first output; constant:
    tensors that are weights, not activations."""
    last = {name: index for index, node in enumerate(graph.node) for name in node.input}
    last |= {value.name: len(graph.node) for value in graph.output}
    held: dict[str, int] = {}  # bytes of buffers that are alive, by the tensor that made them
    root: dict[str, str] = {}  # of every tensor, whose buffer it lies in
    ends: dict[str, int] = {}  # of every buffer, the node that reads it last
    most = 0
    for index, node in enumerate(graph.node):
        if all(name in constant for name in node.output):
            continue
        for name in node.output:
            size = sizes.get(name, 0)
            owners = [root[each] for each in node.input if each in root]
            if node.op_type in VIEWS:
                owner = owners[0] if owners else ""
            else:
                taken = [each for each in owners if ends[each] == index and held[each] == size]
                owner = taken[0] if taken and node.op_type in IN_PLACE else ""
            if owner:
                root[name] = owner
                ends[owner] = max(ends[owner], last.get(name, index))
            elif name and name not in provided and (node.op_type not in VIEWS):
                root[name], ends[name], held[name] = name, last.get(name, index), size
        most = max(most, sum(held.values()) + scratch.get(node.output[0], 0))
        for name in [each for each in held if ends[each] <= index]:
            del held[name]
            root = {tensor: owner for tensor, owner in root.items() if owner != name}
    return most


def constants(graph: Any) -> frozenset[str]:
    """Tensors that no input of the graph reaches, except weights that are dequantised at every run."""
    found = {each.name for each in graph.initializer}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" and all(name in found or not name for name in node.input):
            found.update(node.output)
    return frozenset(found)


def _gathered(graph: Any) -> frozenset[str]:
    """Weights in a file beside the graph of which nothing but rows is read: they are never in memory as a whole."""
    beside = {each.name for each in graph.initializer if each.data_location == EXTERNAL}
    rows = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    whole = {name for node in graph.node for name in node.input[node.op_type == "Gather" :]}
    return frozenset(beside & rows - whole)


def _drop_values(graph: Any) -> None:
    """Weights become inputs that have a type alone: inference then need not copy them."""
    large = [each for each in graph.initializer if _initialiser_size(each) > SMALL or each.data_location == EXTERNAL]
    gone = {each.name for each in large}
    kept = [each for each in graph.initializer if each.name not in gone]
    graph.input.extend(helper.make_tensor_value_info(each.name, each.data_type, list(each.dims)) for each in large)
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _initialiser_size(tensor: Any) -> int:
    return _bytes(tensor.data_type, tensor.dims)


def _bytes(kind: int, dims: Iterable[int]) -> int:
    if kind == TensorProto.UNDEFINED:
        return 0
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize) * math.prod(dims)
