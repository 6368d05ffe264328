"""Trace a GraphModule into an ONNX file, with the names and symbols of its specification.

In: a GraphModule. Out: a file whose weights are named like the reference's. torch.export does the
tracing; of onnxscript's optimiser only constant folding and the removal of duplicates are used.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx_ir
import onnx_ir.passes.common as passes
import onnxscript.optimizer
import torch
from torch import Tensor
from torch.export import Dim

from hart_edge.bundle.manifest import TensorSpec
from hart_edge.errors import BuildError
from hart_edge.export.graph_module import GraphModule
from hart_edge.export.stamp import stamp_blocks

OPSET = 20
# Sizes that hold the relations of specifications (n = p * p, m = q * q, t > n, R = B + U), else of one symbol. S is
# traced as 1, which a graph spreads over the images, and so takes one of each image as well.
EXAMPLE_SIZES = {
    "B": 4, "2B": 8, "S": 1, "R": 6, "U": 2, "k": 10, "n": 9, "t": 11, "N": 14, "M": 7, "p": 3, "q": 5, "m": 25,
}  # fmt: skip
LARGEST = 2**17
TRANSPOSED = ".T"  # what follows the name of a weight that a graph holds transposed
BESIDE_FROM = 1024  # bytes of a tensor that is written beside the graph


def export_graph(graph: GraphModule, path: Path) -> None:
    """Trace a graph into `path`, its weights into a file beside it, PATH.data.

    They are written one by one from the module's own memory. Raises BuildError naming the graph when it cannot be
    traced.
    """
    first = graph.first_block()
    if first is None:
        model = _trace(graph)
    else:
        model = _trace(first.eval())
        stamp_blocks(model, graph)
    _name_transposes(model)
    _divide_by_roots(model)
    onnxscript.optimizer.fold_constants(model)
    for tidy in (
        passes.LiftConstantsToInitializersPass(lift_all_constants=True),
        passes.CommonSubexpressionEliminationPass(),
        passes.DeduplicateInitializersPass(),
        passes.RemoveUnusedNodesPass(),
    ):
        tidy(model)
    _name_symbols(model.graph.inputs, graph.inputs)
    _name_symbols(model.graph.outputs, graph.outputs)
    _forget_tracing(model)
    model.graph.name = graph.name
    onnx_ir.save(model, path, external_data=f"{path.name}.data", size_threshold_bytes=BESIDE_FROM)


def _trace(graph: GraphModule) -> onnx_ir.Model:
    examples = tuple(example_input(tensor) for tensor in graph.inputs)
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                graph,
                examples,
                dynamo=True,
                dynamic_shapes=_dynamic_shapes(graph),
                input_names=[tensor.name for tensor in graph.inputs],
                output_names=[tensor.name for tensor in graph.outputs],
                opset_version=OPSET,
                optimize=False,
                verbose=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BuildError(f"{graph.name}: torch could not trace this graph ({reason}); please report it") from error
    assert program is not None  # torch returns None only when it writes the file itself
    return program.model


def _name_transposes(model: onnx_ir.Model) -> None:
    """Name a transposed weight after the weight, before folding makes one tensor of it: messages and ranges keep it."""
    taken = {value.name for node in model.graph for value in node.outputs}
    for node in model.graph:
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is not None and weight.is_initializer() and (name := f"{weight.name}{TRANSPOSED}") not in taken:
            node.outputs[0].name = name
            taken.add(name)


def _divide_by_roots(model: onnx_ir.Model) -> None:
    """Write x * (1 / sqrt(y)) as x / sqrt(y): so engines know a root mean square normalisation, and run one node."""
    for node in model.graph:
        if node.op_type != "Reciprocal":
            continue
        (root,), value = node.inputs, node.outputs[0]
        for use in value.uses():
            if use.node.op_type == "Mul" and use.idx == 1:
                use.node.op_type = "Div"
                use.node.replace_input_with(1, root)


def _forget_tracing(model: onnx_ir.Model) -> None:
    """Remove the tracer's notes: source lines with paths of this machine, and its own names of things."""
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for node in model.graph:
        node.doc_string = None
        node.metadata_props.clear()
        values += node.outputs
    for notes in (model.metadata_props, model.graph.metadata_props, *(value.metadata_props for value in values)):
        notes.clear()


def example_input(tensor: TensorSpec) -> Tensor:
    """An input of the right dtype and shape; its values are valid everywhere (ids and positions exist)."""
    shape = [EXAMPLE_SIZES[size] if isinstance(size, str) else size for size in tensor.shape]
    if tensor.dtype == "float32":
        return torch.full(shape, 0.5)
    return torch.ones(shape, dtype=getattr(torch, tensor.dtype))


def _dynamic_shapes(graph: GraphModule) -> tuple[object, ...]:
    symbols = {size for tensor in graph.inputs for size in tensor.shape if isinstance(size, str)}
    dims: dict[str, Any] = {symbol: Dim(f"dim_{symbol}", max=LARGEST) for symbol in symbols if symbol.isalpha()}
    if symbols & {"p", "R", "U"}:  # named dimensions can state no relation such as n = p * p or R = B + U
        dims = dict.fromkeys(symbols, Dim.AUTO)
    elif "2B" in symbols:
        dims["2B"] = 2 * dims["B"] if "B" in symbols else Dim("dim_2B", max=LARGEST)
    if "S" in symbols:
        dims["S"] = Dim.STATIC
    per_input = [
        {axis: dims[size] for axis, size in enumerate(tensor.shape) if isinstance(size, str)} for tensor in graph.inputs
    ]
    named = graph.named_inputs
    if named < len(per_input):  # the rest is the forward's *rest
        return (*per_input[:named], tuple(per_input[named:]))
    return tuple(per_input)


def _name_symbols(values: Sequence[onnx_ir.Value], specification: tuple[TensorSpec, ...]) -> None:
    """Write the specification's symbols over the tracer's."""
    for value, tensor in zip(values, specification, strict=True):
        assert value.shape is not None  # the tracer knows every shape
        value.shape = onnx_ir.Shape(list(tensor.shape))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back two messages of the tracer that no user can act on: absent torchvision, unused axis names."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"# The axis name: .* will not be used")
            warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
            yield
    finally:
        logger.setLevel(level)
