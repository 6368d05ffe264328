"""Write FP16 tensors into an ONNX graph, for engine libraries that take precision from the graph alone.

In: a graph in float32, with Q/DQ or without. Out: the same nodes with casts between the types. Matrix products,
convolutions and nodes that only move or join their results are in FP16. Norms, softmax, exponentials, comparisons and
every sum with a float32 operand (the residual stream, the denoising steps, f_hat) stay in float32.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hart_edge.calib.graph_files import read_tensor
from hart_edge.calib.quantizable_nodes import SMALLEST_WEIGHT
from hart_edge.calib.rewrite.nodes import replace_nodes
from hart_edge.calib.scheme import CACHE
from hart_edge.errors import BuildError

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
FP16_LARGEST = float(np.finfo(np.float16).max)
FP16_SMALLEST = float(np.finfo(np.float16).tiny)

PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})
# These nodes are in FP16 if all their inputs are, apart from constants.
FOLLOWING = frozenset(
    {"Add", "Sub", "Mul", "Div", "Neg", "Sigmoid", "Reshape", "Transpose", "Slice", "Split", "Concat", "Squeeze"}
    | {"Unsqueeze", "Expand", "Tile", "Gather", "GatherND", "Where", "Resize", "Pad", "Identity"}
)
TYPELESS = frozenset({"Shape", "Cast"})  # take their input in either type
SUFFIX: dict[int, str] = {FLOAT16: ":fp16", FLOAT: ":fp32"}


def to_fp16(
    model: onnx.ModelProto, folder: Path, exact_after: str | None = None, wide: Collection[str] = frozenset()
) -> None:
    """Rewrite a graph in place. exact_after: a tensor behind which everything stays in float32.

    folder: of the weights that lie outside the model; wide: tensors whose values may leave the range of FP16. Raises
    BuildError for a weight beyond that range.
    """
    _Fp16Rewriter(model, folder, exact_after, wide).rewrite()


def tensors_in_fp16(model: onnx.ModelProto) -> list[str]:
    """The tensors of a rewritten graph that are FP16, apart from weights, by their names before it was rewritten."""
    weights = {tensor.name for tensor in model.graph.initializer}
    names = (name for name in _tensors_of(model, FLOAT16) if name not in weights)
    return list(dict.fromkeys(name.removesuffix(SUFFIX[FLOAT16]) for name in names))


def fp16_weight(graph: str, name: str, value: NDArray[Any]) -> NDArray[np.float16]:
    """A weight in FP16. Raises BuildError if a value is beyond its range."""
    if not np.abs(value).max(initial=0) <= FP16_LARGEST:  # true for NaN as well
        raise BuildError(f"{graph}: weight {name} exceeds the range of FP16; build this model at fp32")
    return value.astype(np.float16)


class _Fp16Rewriter:
    """Rewrites one graph. Each tensor has one version per type, which is made when a node first needs it."""

    def __init__(self, model: onnx.ModelProto, folder: Path, exact_after: str | None, wide: Collection[str]) -> None:
        self.graph, self.folder, self.wide = model.graph, folder, wide
        self.exact = {exact_after} if exact_after else set()
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.floats = frozenset(_tensors_of(model, FLOAT))
        self.versions: dict[str, dict[int, str]] = {}
        self.constants: dict[str, NDArray[Any]] = {}  # of Constant nodes
        self.outputs = {value.name: value for value in self.graph.output}
        self.nodes: list[onnx.NodeProto] = []

    def rewrite(self) -> None:
        for value in (*self.graph.input, *self.graph.output):
            if value.name.startswith(CACHE):
                value.type.tensor_type.elem_type = FLOAT16
        for value in self.graph.input:
            self.versions[value.name] = {value.type.tensor_type.elem_type: value.name}
        for node in list(self.graph.node):
            self._node(node)
        replace_nodes(self.graph, self.nodes)
        used = {name for node in self.graph.node for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        for field, values in ((self.graph.initializer, kept), (self.graph.value_info, [])):
            del field[:]
            field.extend(values)

    def _node(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant" and node.output[0] in self.floats:
            value = helper.get_attribute_value(node.attribute[0])  # a tensor, a number or several
            is_tensor = isinstance(value, TensorProto)
            self.constants[node.output[0]] = numpy_helper.to_array(value) if is_tensor else np.array(value, np.float32)
            self.versions[node.output[0]] = {FLOAT: node.output[0]}
        if node.op_type == "CastLike" and node.output[0] in self.floats:  # it cast float to float: of no more use
            self.versions[node.output[0]] = self.versions.setdefault(node.input[0], {FLOAT: node.input[0]})
            if node.input[0] in self.initializers:
                self.initializers[node.output[0]] = self.initializers[node.input[0]]
            return
        exact = any(name in self.exact for name in node.input)
        if exact:
            self.exact.update(node.output)
        wanted = FLOAT if exact and node.op_type != "QuantizeLinear" else self._type_of(node)
        for index, name in enumerate(node.input):
            always_float = node.op_type == "Resize" and index > 0  # roi and scales
            if name in self.floats and node.op_type not in TYPELESS:
                node.input[index] = self._version(name, FLOAT if always_float else wanted)
            elif name in self.floats:
                node.input[index] = next(iter(self.versions.setdefault(name, {FLOAT: name}).values()))
        after = []
        for index, name in enumerate(node.output):
            if name in self.floats and node.op_type != "Constant":
                after += self._produce(node, index, wanted)
        self.nodes += [node, *after]

    def _type_of(self, node: onnx.NodeProto) -> int:
        """The type that a node computes in."""
        if any(name in self.wide for name in node.output):
            return FLOAT
        if node.op_type in PRODUCTS or node.op_type == "DequantizeLinear":
            return FLOAT16
        varying = [name for name in node.input if name in self.floats and not self._constant(name)]
        are_fp16 = [FLOAT16 in self.versions.get(name, {}) and self._produced(name) == FLOAT16 for name in varying]
        if node.op_type == "QuantizeLinear":
            return FLOAT16 if are_fp16[0] else FLOAT
        if node.op_type not in FOLLOWING:
            return FLOAT
        if not varying:  # all inputs are constants; an embedding table among them is a weight like any other
            table = self.initializers.get(node.input[0]) if node.op_type == "Gather" else None
            return FLOAT16 if table is not None and math.prod(table.dims) >= SMALLEST_WEIGHT else FLOAT
        joins_cache = node.op_type == "Concat" and any(are_fp16)
        fits = all(self._fits(name) for name in node.input if name in self.floats and self._constant(name))
        return FLOAT16 if fits and (joins_cache or all(are_fp16)) else FLOAT

    def _produced(self, name: str) -> int:
        """The type of a tensor as its node made it."""
        return next(iter(self.versions[name]))

    def _constant(self, name: str) -> bool:
        return name in self.initializers or name in self.constants

    def _fits(self, name: str) -> bool:
        """Whether FP16 represents a constant, unlike a mask of -3e38 or a small epsilon."""
        if name in self.initializers and math.prod(self.initializers[name].dims) >= SMALLEST_WEIGHT:
            return True  # it is a weight, whose range is checked when it is converted
        value = np.abs(self._value(name))
        return bool(value.max(initial=0) <= FP16_LARGEST and not ((value > 0) & (value < FP16_SMALLEST)).any())

    def _value(self, name: str) -> NDArray[Any]:
        return self.constants[name] if name in self.constants else read_tensor(self.initializers[name], self.folder)

    def _version(self, name: str, wanted: int) -> str:
        """The name of a tensor in a type. If it has no such version yet, a cast or a converted constant is added."""
        versions = self.versions.setdefault(name, {FLOAT: name})
        if wanted not in versions:
            source = next(iter(versions.values()))
            versions[wanted] = f"{source.removesuffix(SUFFIX[FLOAT16])}{SUFFIX[wanted]}"
            if self._constant(name):
                value = fp16_weight(self.graph.name, name, self._value(name))
                self.graph.initializer.append(numpy_helper.from_array(value, versions[wanted]))
            else:
                self.nodes.append(self._cast(source, versions[wanted], wanted))
        return versions[wanted]

    def _produce(self, node: onnx.NodeProto, index: int, produced: int) -> list[onnx.NodeProto]:
        """Note which type an output of a node has. An output of the graph keeps its name for its declared type."""
        name = node.output[index]
        output = self.outputs.get(name)
        declared = produced if output is None else output.type.tensor_type.elem_type
        if node.op_type == "Cast":  # it casts from integers or bool
            produced = FLOAT
        if declared == produced:
            self.versions[name] = {produced: name}
            return []
        node.output[index] = f"{name}{SUFFIX[produced]}"
        self.versions[name] = {produced: node.output[index], declared: name}
        return [self._cast(node.output[index], name, declared)]

    def _cast(self, source: str, target: str, to: int) -> onnx.NodeProto:
        return helper.make_node("Cast", [source], [target], name=f"node_cast_{target}", to=to)


def _tensors_of(model: onnx.ModelProto, dtype: int) -> list[str]:
    """Names of all tensors of a type. Shape inference gets large weights without their values, which it would copy."""
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.name = model.graph.name
    for source, target in ((model.graph.node, graph.node), (model.graph.input, graph.input)):
        target.extend(source)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if math.prod(tensor.dims) < SMALLEST_WEIGHT:
            graph.initializer.append(tensor)
        graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    inferred = onnx.shape_inference.infer_shapes(skeleton).graph
    values = (*inferred.input, *inferred.value_info, *inferred.output)
    return [value.name for value in values if value.type.tensor_type.elem_type == dtype]
