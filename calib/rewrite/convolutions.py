"""Convolutions of UINT8 by INT8 whose every channel has its own range: QLinearConv, written out.

In: a graph in float32 and ranges per channel. The graph is rewritten in place. ONNX Runtime fuses Q/DQ around a
convolution only where a tensor has one scale, and its kernel takes one for its input and one for its result. Channels
of the input are divided by factors that the weights are multiplied by, and have one scale; a result's scale per
channel goes into the scales of its weights, and its zero point into the bias.

A convolution of 3 x 3 behind nearest upsampling sees every value four times. It becomes four of 2 x 2 on the small
map, one for each place in a square of two by two, whose results are put side by side: the same sums with 4/9 of the
products.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hart_edge.calib.calibrate.ranges import ActivationRange, Ranges, with_zero
from hart_edge.calib.graph_files import read_tensor
from hart_edge.calib.quantizable_nodes import QuantizableNode, find_quantizable_nodes
from hart_edge.calib.rewrite.int8_numbers import activation_parameters, quantize_weight
from hart_edge.calib.rewrite.nodes import make_node, replace_nodes
from hart_edge.calib.scheme import Scheme
from hart_edge.errors import BuildError

MARGIN = 1.15  # by which a result's range is wider than all that calibration saw
# Places in a square that nearest upsampling makes of one value, as (row, column), in the order of DepthToSpace.
PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))
# Attributes of a convolution of 3 x 3 that keeps the side of a map: name, default, value.
PLAIN = (("pads", None, [1, 1, 1, 1]), ("strides", [1, 1], [1, 1]), ("dilations", [1, 1], [1, 1]), ("group", 1, 1))

Floats = NDArray[np.float32]


def write_convolutions(model: onnx.ModelProto, ranges: Ranges, folder: Path, excluded: Collection[str]) -> None:
    """Rewrite every convolution that U8S8_CHANNELS quantises, but those whose weight is excluded or shared.

    folder: of the weights that lie outside the model. Raises BuildError where a range is missing.
    """
    out = {*excluded, *shared_weights(model.graph)}
    nodes = [
        node
        for node in find_quantizable_nodes(model.graph)
        if Scheme.U8S8_CHANNELS.quantizes(node.kind, node.weight) and node.weight not in out
    ]
    _Rewriter(model.graph, ranges, folder).rewrite(nodes)


def shared_weights(graph: onnx.GraphProto) -> set[str]:
    """Weights of several nodes, whose activations have factors of their own."""
    users = Counter(node.weight for node in find_quantizable_nodes(graph))
    return {weight for weight, count in users.items() if count > 1}


@dataclass(frozen=True)
class _Input:
    """A quantised tensor. parameters: names of its scale and zero point; factors: its channels have been divided by
    them, (C,); scale: of the quotients."""

    name: str
    parameters: tuple[str, str]
    scale: np.float32
    factors: Floats


class _Rewriter:
    def __init__(self, graph: onnx.GraphProto, ranges: Ranges, folder: Path) -> None:
        self.graph, self.ranges, self.folder = graph, ranges, folder
        self.initializers = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {output: node for node in graph.node for output in node.output}
        self.readers: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                self.readers[name] = self.readers.get(name, 0) + 1
        self.inputs: dict[str, _Input] = {}
        self.before: dict[str, list[onnx.NodeProto]] = {}  # result of a convolution -> nodes in its place
        self.dropped: set[str] = set()  # results of nodes that are no longer needed

    def rewrite(self, nodes: Collection[QuantizableNode]) -> None:
        for node in nodes:
            self.before[node.proto.output[0]] = self._convolution(node)
        ordered: list[onnx.NodeProto] = []
        for each in self.graph.node:
            output = each.output[0]
            if output not in self.dropped:
                ordered += self.before.get(output, [each])
        used = {name for each in ordered for name in each.input}
        replace_nodes(self.graph, [each for each in ordered if each.op_type != "Constant" or each.output[0] in used])
        kept = [TensorProto.FromString(tensor.SerializeToString()) for tensor in self.graph.initializer]
        kept = [tensor for tensor in kept if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _convolution(self, node: QuantizableNode) -> list[onnx.NodeProto]:
        """The nodes in place of a convolution; the last of them makes its result."""
        result, weight = node.proto.output[0], self._values(node.weight)
        bias = np.zeros(len(weight), np.float32) if node.bias is None else self._values(node.bias)
        small = self._upsampled(node)
        nodes, source = self._input(node, small or node.activation)
        weight = weight * source.factors[:, None, None]
        scale, zero = self._result_parameters(result)
        quantized = f"{result}:u8"
        if small is None:
            attributes = {each.name: helper.get_attribute_value(each) for each in node.proto.attribute}
            taken = {key: attributes[key] for key in ("pads", "strides", "dilations", "group") if key in attributes}
            nodes.append(self._product(quantized, source, node.weight, weight, bias, (scale, zero), taken))
        else:
            parts = [f"{result}:{row}{column}:u8" for row, column in PLACES]
            for part, (row, column) in zip(parts, PLACES, strict=True):
                own, pads = at_place(weight, row, column), [1 - row, 1 - column, row, column]
                name = f"{node.weight}:{row}{column}"
                nodes.append(self._product(part, source, name, own, bias, (scale, zero), {"pads": pads}))
            nodes.append(make_node("Concat", parts, [f"{result}:parts"], axis=1))
            nodes.append(make_node("DepthToSpace", [f"{result}:parts"], [quantized], blocksize=2))
        given = [quantized, self._add(f"{result}:scale", scale), self._add(f"{result}:zero", zero)]
        return [*nodes, make_node("DequantizeLinear", given, [result], axis=1)]

    def _upsampled(self, node: QuantizableNode) -> str | None:
        """The small map, where a convolution of 3 x 3 reads what nearest upsampling by two makes for it alone."""
        maker = self.makers.get(node.activation)
        attributes = {each.name: helper.get_attribute_value(each) for each in node.proto.attribute}
        kernel = self.initializers[node.weight].dims[2:]
        if maker is None or maker.op_type != "Resize" or self.readers[node.activation] != 1:
            return None
        wanted = {"mode": b"nearest", "nearest_mode": b"floor", "coordinate_transformation_mode": b"asymmetric"}
        own = {each.name: helper.get_attribute_value(each) for each in maker.attribute}
        scales = self._constant(maker.input[2]) if len(maker.input) == 3 else None
        if any(own.get(key) != value for key, value in wanted.items()) or list(kernel) != [3, 3]:
            return None
        if any(attributes.get(key, default) != value for key, default, value in PLAIN):
            return None
        if scales is None or scales.tolist() != [1, 1, 2, 2]:
            return None
        self.dropped.add(node.activation)
        return str(maker.input[0])

    def _constant(self, name: str) -> NDArray[Any] | None:
        """The values of an initialiser or of a Constant node."""
        if name in self.initializers:
            return read_tensor(self.initializers[name], self.folder)
        maker = self.makers.get(name)
        if maker is None or maker.op_type != "Constant":
            return None
        value = helper.get_attribute_value(maker.attribute[0])
        return numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.array(value)

    def _input(self, node: QuantizableNode, tensor: str) -> tuple[list[onnx.NodeProto], _Input]:
        """A tensor in UINT8, by the range of the one that a convolution read, and the nodes that make it, if any."""
        calibrated, channels = node.activation, self.initializers[node.weight].dims[1]
        if calibrated in self.inputs:
            return [], self.inputs[calibrated]
        entry = self._range(calibrated)
        scale, zero = activation_parameters(*with_zero(entry.low, entry.high))
        factors = entry.factors()
        factors = np.ones(channels, np.float32) if factors is None else factors
        if len(factors) != channels:
            raise self._mismatch(f"{len(factors)} factors for {calibrated} of {channels} channels")
        stem = f"{calibrated}:smoothed"  # the tensor may be a convolution's result as well, with names of its own
        given = [
            tensor,
            self._add(f"{stem}:scales", (scale * factors).astype(np.float32)),
            self._add(f"{stem}:zeros", np.full(channels, zero)),
        ]
        names = self._add(f"{stem}:scale", np.array(scale)), self._add(f"{stem}:zero", np.array(zero))
        self.inputs[calibrated] = _Input(f"{stem}:u8", names, scale, factors)
        return [make_node("QuantizeLinear", given, [f"{stem}:u8"], axis=1)], self.inputs[calibrated]

    def _mismatch(self, found: str) -> BuildError:
        return BuildError(f"{self.graph.name}: {found}; calibrate this model")

    def _range(self, tensor: str) -> ActivationRange:
        if tensor not in self.ranges:
            raise self._mismatch(f"calibration has no range for {tensor}")
        return ActivationRange(*self.ranges[tensor])

    def _result_parameters(self, tensor: str) -> tuple[Floats, NDArray[np.uint8]]:
        """Scales and zero points (C,) of a convolution's result."""
        entry = self._range(tensor)
        if not entry.lows:
            raise self._mismatch(f"calibration has no range per channel for {tensor}")
        pairs = []
        for low, high in zip(entry.lows, entry.highs, strict=True):
            middle, half = (low + high) / 2, MARGIN * (high - low) / 2
            pairs.append(activation_parameters(middle - half, middle + half))
        return np.array([scale for scale, _ in pairs], np.float32), np.array([zero for _, zero in pairs], np.uint8)

    def _product(
        self,
        result: str,
        source: _Input,
        name: str,
        weight: Floats,
        bias: Floats,
        parameters: tuple[Floats, NDArray[np.uint8]],
        attributes: dict[str, Any],
    ) -> onnx.NodeProto:
        """A QLinearConv. name: of the weight, for the names of its initialisers; parameters: of the result."""
        scale, zero = parameters
        integers, steps = quantize_weight(weight, 0, paired=True)
        sums = np.round((bias.astype(np.float64) + zero * scale.astype(np.float64)) / (source.scale * steps))
        if np.abs(sums).max() >= 2**31:
            raise BuildError(f"{self.graph.name}: the bias of {name} is beyond INT32; --exclude {name.split(':')[0]}")
        given = [
            source.name,
            *source.parameters,
            self._add(f"{name}:s8", integers),
            self._add(f"{name}:scale", (steps / scale).astype(np.float32)),
            self._add(f"{name}:zero", np.zeros(len(steps), np.int8)),
            self._add("convolutions:scale", np.array(1, np.float32)),
            self._add("convolutions:zero", np.array(0, np.uint8)),
            self._add(f"{name}:bias", sums.astype(np.int32)),
        ]
        node = make_node("QLinearConv", given, [result])
        node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
        return node

    def _values(self, name: str) -> Floats:
        values: Floats = read_tensor(self.initializers[name], self.folder)
        return values

    def _add(self, name: str, value: NDArray[Any]) -> str:
        if name not in self.initializers:
            contiguous = np.ascontiguousarray(value).reshape(value.shape)
            self.graph.initializer.append(numpy_helper.from_array(contiguous, name))
            self.initializers[name] = self.graph.initializer[-1]
        return name


def at_place(weight: Floats, row: int, column: int) -> Floats:
    """The kernel of 2 x 2 on the small map that one place of the upsampled one sees of a kernel (K, C, 3, 3)."""

    def merge(values: Floats, place: int, axis: int) -> Floats:
        first, middle, last = np.split(values, 3, axis)
        return np.concatenate([first, middle + last] if place == 0 else [first + middle, last], axis)

    return merge(merge(weight, row, 2), column, 3)
