"""Check a graph against what TensorRT 10.x and 11.x take, on a machine where neither can be installed.

In: an ONNX file. Out: a finding per fault, each with the node and what to do; nothing for a graph that may be built.
The rules are data in export/tensorrt_lint/rules.py and engines/tensorrt/facts.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hart_edge.calib.graph_files import read_graph, read_tensor
from hart_edge.engines.tensorrt.facts import PARSERS, Parser
from hart_edge.errors import BuildError
from hart_edge.export.tensorrt_lint.rules import CONSTANT_INPUTS, OPERATORS, RESIZE, SIDE_INPUTS, WEIGHTED

LARGE = 2**20  # elements of an initialiser that no rule looks into


def require_clean(path: Path, majors: Sequence[int] = tuple(PARSERS)) -> None:
    """Raise BuildError with the first finding of a graph, and how many there are."""
    findings = [finding for major in majors for finding in lint(path, PARSERS[major])]
    if findings:
        raise BuildError(f"{path.stem}: TensorRT would refuse this graph: {findings[0]} ({len(findings)} findings)")


def lint(path: Path, rules: Parser) -> list[str]:
    """All findings of a graph under the rules of one major version."""
    return list(_Lint(path, rules).findings())


class _Lint:
    def __init__(self, path: Path, rules: Parser) -> None:
        self.folder, self.rules = path.parent, rules
        self.model = read_graph(path)
        self.graph = self.model.graph
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        values = (*inferred.value_info, *self.graph.input, *self.graph.output)
        self.types = {value.name: value.type.tensor_type.elem_type for value in values}
        self.types |= {tensor.name: tensor.data_type for tensor in self.graph.initializer}
        self.ranks = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in values
            if value.type.tensor_type.HasField("shape")
        }
        self.ranks |= {tensor.name: len(tensor.dims) for tensor in self.graph.initializer}
        self.makers = {output: node for node in self.graph.node for output in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.inputs = {value.name for value in self.graph.input}
        self.outputs = {value.name for value in self.graph.output}

    def findings(self) -> Iterator[str]:
        for opset in self.model.opset_import:
            if opset.domain not in ("", "ai.onnx"):
                yield f"operators of the domain {opset.domain!r}, which no TensorRT parser knows"
            elif opset.version not in self.rules.opsets:
                allowed = f"{self.rules.opsets[0]} to {self.rules.opsets[-1]}"
                yield f"opset {opset.version}, where TensorRT {self.rules.major}.x reads {allowed} in every release"
        named = [node.name for node in self.graph.node]
        if "" in named or len(set(named)) < len(named):
            yield "nodes without a name of their own, whose fate no report could tell"
        for name, rank in self.ranks.items():
            if rank > self.rules.most_dimensions:
                yield f"tensor {name} has {rank} dimensions, and TensorRT has {self.rules.most_dimensions}"
        for node in self.graph.node:
            for finding in self._node(node):
                yield f"node {node.name} ({node.op_type}): {finding}"

    def _node(self, node: onnx.NodeProto) -> Iterator[str]:
        if node.op_type not in OPERATORS:
            yield "no operator of TensorRT's parser, or none that these graphs are known to use"
            return
        side = SIDE_INPUTS.get(node.op_type, frozenset())
        data = [name for index, name in enumerate(node.input) if name and index not in side]
        yield from self._types(node, data)
        for index in CONSTANT_INPUTS.get(node.op_type, frozenset()):
            if index < len(node.input) and node.input[index] and self._constant(node.input[index]) is None:
                yield f"input {node.input[index]} must be a constant"
        if node.op_type == "TopK":
            k = self._constant(node.input[1])
            if k is not None and not 1 <= int(k.reshape(-1)[0]) < self.rules.top_k_below:
                yield f"K is {int(k.reshape(-1)[0])}, and TensorRT takes less than {self.rules.top_k_below}"
            if any(attribute.name == "sorted" and not attribute.i for attribute in node.attribute):
                yield "sorted must be 1"
        if node.op_type == "Resize":
            for attribute in node.attribute:
                value = helper.get_attribute_value(attribute)
                if attribute.name in RESIZE and value.decode() not in RESIZE[attribute.name]:
                    yield f"{attribute.name} {value.decode()} is not supported"
        if node.op_type == "LayerNormalization" and len(node.output) > 1:
            yield "only its first output is supported"
        if node.op_type == "QuantizeLinear":
            yield from self._quantize(node)
        if node.op_type == "DequantizeLinear":
            yield from self._dequantize(node)

    def _types(self, node: onnx.NodeProto, data: list[str]) -> Iterator[str]:
        allowed = OPERATORS[node.op_type]
        found = {self._type(name) for name in data}
        for dtype in sorted(found - allowed):
            yield f"reads {dtype}, and TensorRT takes {', '.join(sorted(allowed))}"
        floats = found & {"FLOAT", "FLOAT16"}
        if len(floats) > 1 and node.op_type not in ("Cast", "CastLike"):
            yield "mixes FLOAT and FLOAT16, which strongly typed networks refuse"
        for name in node.output:
            dtype = self._type(name)
            if dtype == "UINT8" and (node.op_type != "Cast" or name not in self.outputs or name in self.readers):
                yield "makes UINT8 that is not an output of the graph straight from a Cast"
            if dtype == "INT8" and node.op_type != "QuantizeLinear":
                yield "makes INT8, which only QuantizeLinear may"
            if dtype == "DOUBLE":
                yield "makes DOUBLE"

    def _quantize(self, node: onnx.NodeProto) -> Iterator[str]:
        yield from self._parameters(node, "INT8")
        readers = self.readers.get(node.output[0], [])
        if node.output[0] in self.outputs or not readers:
            yield "its INT8 leaves the graph"
        for reader in readers:
            if reader.op_type != "DequantizeLinear":
                yield f"its INT8 is read by {reader.name} ({reader.op_type}) and not by DequantizeLinear alone"
            elif not self._same_scale(node, reader):
                yield f"its scale differs from that of {reader.name}"
        scale = self._constant(node.input[1])
        if scale is not None and scale.size != 1:
            yield "activations have one scale per tensor"

    def _dequantize(self, node: onnx.NodeProto) -> Iterator[str]:
        yield from self._parameters(node, "INT8")
        for reader in self.readers.get(node.output[0], []):
            if reader.op_type not in WEIGHTED:
                yield f"feeds {reader.name} ({reader.op_type}); INT8 kernels exist for {', '.join(sorted(WEIGHTED))}"
        weight = self.initializers.get(node.input[0])
        scale = self._constant(node.input[1])
        if weight is None or scale is None or scale.size == 1:
            if weight is None and self.makers.get(node.input[0], node).op_type != "QuantizeLinear":
                yield f"reads {node.input[0]}, which is neither a weight nor the result of QuantizeLinear"
            return
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        if scale.shape != (weight.dims[axis],):
            yield f"{scale.size} scales for {weight.dims[axis]} channels"
        for reader in self.readers.get(node.output[0], []):
            if reader.op_type in WEIGHTED and axis != _channel_axis(reader):
                yield f"scales lie along axis {axis} and not along the output channels of {reader.name}"

    def _parameters(self, node: onnx.NodeProto, dtype: str) -> Iterator[str]:
        scale = self._constant(node.input[1])
        if scale is not None and not (np.isfinite(scale).all() and (scale > 0).all()):
            yield "scales must be positive and finite"
        zero = node.input[2] if len(node.input) > 2 else ""
        if not zero:
            yield f"has no zero point, whose type would be {dtype}"
            return
        value = self._constant(zero)
        if self._type(zero) != dtype:
            yield f"its zero point is {self._type(zero)}, and TensorRT quantises to {dtype}"
        elif value is not None and value.any():
            yield "its zero point is not zero: TensorRT quantises symmetrically"

    def _same_scale(self, one: onnx.NodeProto, other: onnx.NodeProto) -> bool:
        first, second = (self._constant(node.input[1]) for node in (one, other))
        if first is None or second is None:
            return False
        return np.array_equal(first.astype(np.float32), second.astype(np.float32))

    def _constant(self, name: str) -> NDArray[Any] | None:
        """A small constant's value; None for what is none."""
        if name in self.initializers:
            tensor = self.initializers[name]
            return read_tensor(tensor, self.folder) if math.prod(tensor.dims) <= LARGE else np.zeros(0)
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "Constant":
            return None
        value = helper.get_attribute_value(maker.attribute[0])
        return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)

    def _type(self, name: str) -> str:
        return str(TensorProto.DataType.Name(self.types.get(name, TensorProto.UNDEFINED)))


def _channel_axis(node: onnx.NodeProto) -> int:
    """The axis of a weight's output channels."""
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1
