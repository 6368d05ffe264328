"""Write INT8 into an ONNX graph: weights, activations with Q/DQ or quantised at run time, smoothing, corrected biases.

In: a graph in float32, an INT8 scheme and the ranges of the activations. The graph is rewritten in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from hart_edge.calib.calibrate.ranges import ActivationRange
from hart_edge.calib.graph_files import read_tensor
from hart_edge.calib.quantizable_nodes import NodeKind, QuantizableNode, find_quantizable_nodes, image_tensors
from hart_edge.calib.rewrite.int8_numbers import activation_parameters, quantize_weight, symmetric_parameters
from hart_edge.calib.rewrite.nodes import make_node, replace_nodes
from hart_edge.calib.scheme import Scheme
from hart_edge.errors import BuildError

# Elements. Convolutions with so many channels work on small maps, where dequantising the kernel is a small part of the
# time.
LARGE_KERNEL = 2**20


class Int8Rewriter:
    """Rewrites one graph. Every weight and activation is quantised once, however many nodes use it."""

    def __init__(
        self,
        model: onnx.ModelProto,
        scheme: Scheme,
        ranges: Mapping[str, tuple[float, ...] | ActivationRange],
        folder: Path,
        excluded: Collection[str],
        weight_only: Collection[str] = frozenset(),
    ) -> None:
        """folder: of the weights that lie outside the model; excluded: weights that stay as they are; weight_only:
        weights that become INT8 while their activations stay as they are.
        """
        self.graph, self.scheme, self.folder, self.weight_only = model.graph, scheme, folder, weight_only
        self.ranges = {name: ActivationRange(*entry) for name, entry in ranges.items()}
        self.nodes = [
            node
            for node in find_quantizable_nodes(self.graph)
            if scheme.holds_int8(node.kind, node.weight) and node.weight not in excluded
        ]
        self.images = image_tensors(self.nodes)
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.quantized_weights: dict[
            tuple[str, int], tuple[str, NDArray[np.float32]]
        ] = {}  # (weight, axis) -> stem, scales
        self.paired = {node.weight for node in self.nodes if scheme.unsigned and self._quantizes(node)}
        self.factors: dict[str, NDArray[np.float32]] = {}  # of a weight's input channels, if its activation is smoothed
        self.weights: dict[tuple[str, int], str] = {}  # (weight, axis) -> dequantised name
        self.activations: dict[str, str] = {}
        self.first: list[onnx.NodeProto] = []  # nodes that read constants only
        self.after: dict[str, list[onnx.NodeProto]] = {}  # tensor -> nodes to insert behind the one that makes it
        self.replaced: dict[str, list[onnx.NodeProto]] = {}  # tensor -> nodes in place of the one that made it
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def rewrite(self) -> None:
        self._gather_factors()
        for node in self.nodes:
            if node.kind is NodeKind.EMBEDDING:
                self._embedding(node)
                continue
            if not self._quantizes(node):
                node.proto.input[1] = self._weight(node)
                continue
            correction = self._correction(node)
            if self.scheme is Scheme.DYNAMIC:
                self._integer_product(node, correction)
                continue
            node.proto.input[1] = self._weight(node)
            node.proto.input[0] = self._activation(node.activation)
            if node.bias is not None and not self.scheme.fp16_activations:
                node.proto.input[2] = self._bias(node, correction)
            elif correction is not None:
                self._correct(node, correction)
            if node.kind is NodeKind.CONV and self.scheme.unsigned:
                self._output(node)
        self._drop_unused()
        self._place()

    def _quantizes(self, node: QuantizableNode) -> bool:
        """Whether the activation of a node is quantised."""
        return self.scheme.quantizes(node.kind, node.weight) and node.weight not in self.weight_only

    def _gather_factors(self) -> None:
        """Find the factors of the input channels of every weight. Raises BuildError where ranges disagree."""
        exponents: dict[str, tuple[int, ...]] = {}
        for node in self.nodes:
            if node.kind is NodeKind.EMBEDDING or not self._quantizes(node):
                continue
            entry = self.ranges.get(node.activation, ActivationRange(0.0, 0.0))
            inputs = self.initializers[node.weight].dims[1 - node.channel_axis]
            if exponents.setdefault(node.weight, entry.exponents) != entry.exponents or (
                entry.exponents and len(entry.exponents) != inputs
            ):
                raise BuildError(
                    f"{self.graph.name}: the factors for {node.activation} are not those of {node.weight}; "
                    "calibrate this model"
                )
            factors = entry.factors()
            if factors is not None:
                self.factors[node.weight] = factors

    def _parameters(self, tensor: str) -> tuple[str, str]:
        """The names of the initialisers of an activation's scale and zero point."""
        if tensor not in self.ranges:
            raise BuildError(f"{self.graph.name}: calibration has no range for {tensor}; calibrate this model")
        parameters: Callable[[float, float], tuple[np.generic, np.generic]] = activation_parameters
        if not self.scheme.unsigned:
            parameters = symmetric_parameters
        names = f"{tensor}:scale", f"{tensor}:zero"
        for name, value in zip(names, parameters(self.ranges[tensor].low, self.ranges[tensor].high), strict=True):
            if name not in self.initializers:
                self._add(name, np.array(value))
        return names

    def _smooth(self, tensor: str) -> str:
        """The activation with its channels divided by their factors; without a node where all factors are 1."""
        factors = self.ranges[tensor].factors() if tensor in self.ranges else None
        if factors is None:
            return tensor
        smoothed = f"{tensor}:smoothed"
        if f"{tensor}:inverse" not in self.initializers:
            inverse = (1 / factors).astype(np.float32)
            self._add(f"{tensor}:inverse", inverse[:, None, None] if tensor in self.images else inverse)
            self.after.setdefault(tensor, []).append(make_node("Mul", [tensor, f"{tensor}:inverse"], [smoothed]))
        return smoothed

    def _activation(self, tensor: str) -> str:
        if tensor not in self.activations:
            scale, zero = self._parameters(tensor)
            source = self._smooth(tensor)
            quantized, restored = f"{tensor}:{'u8' if self.scheme.unsigned else 's8'}", f"{tensor}:restored"
            nodes = [
                make_node("QuantizeLinear", [source, scale, zero], [quantized]),
                make_node("DequantizeLinear", [quantized, scale, zero], [restored]),
            ]
            self.after.setdefault(tensor, []).extend(nodes)
            self.activations[tensor] = restored
        return self.activations[tensor]

    def _integer_product(self, node: QuantizableNode, correction: NDArray[np.float32] | None) -> None:
        """MatMulInteger of an activation that is quantised at run time; the bias stays in float32."""
        tensor, output = node.activation, node.proto.output[0]
        stem, _ = self._quantized_weight(node.weight, node.channel_axis)
        weight = f"{stem}:s8"
        if node.channel_axis == 0:  # (outputs, inputs), of a Gemm
            weight = f"{stem}:s8.T"
            if weight not in self.initializers:
                self._add(weight, np.ascontiguousarray(numpy_helper.to_array(self.initializers[f"{stem}:s8"]).T))
        u8 = [f"{tensor}:dynamic:{part}" for part in ("u8", "scale", "zero")]
        if tensor not in self.activations:
            nodes = [make_node("DynamicQuantizeLinear", [self._smooth(tensor)], u8)]
            self.after.setdefault(tensor, []).extend(nodes)
            self.activations[tensor] = u8[0]
        product, both = f"{output}:product", f"{output}:scale"
        nodes = [
            make_node("MatMulInteger", [u8[0], weight, u8[2]], [f"{output}:s32"]),
            make_node("Cast", [f"{output}:s32"], [f"{output}:f32"], to=TensorProto.FLOAT),
            make_node("Mul", [u8[1], f"{stem}:scale"], [both]),
            make_node("Mul", [f"{output}:f32", both], [output if node.bias is None else product]),
        ]
        if node.bias is not None:
            bias = node.bias if correction is None else self._corrected_bias(node, node.bias, correction)
            nodes.append(make_node("Add", [product, bias], [output]))
        elif correction is not None:
            self._correct(node, correction)
        self.replaced[output] = nodes

    def _correction(self, node: QuantizableNode) -> NDArray[np.float32] | None:
        """What rounding the weights takes from the mean of each output channel; None if it is not corrected."""
        entry = self.ranges.get(node.activation)
        if entry is None or not entry.means or node.kind is not NodeKind.LINEAR:
            return None
        means = np.array(entry.means, np.float32)
        weight = read_tensor(self.initializers[node.weight], self.folder)
        stem, scale = self._quantized_weight(node.weight, node.channel_axis)
        restored = numpy_helper.to_array(self.initializers[f"{stem}:s8"]).astype(np.float32)
        if node.channel_axis == 0:
            weight, restored = weight.T, restored.T
        factors = self.factors.get(node.weight)
        smoothed = means if factors is None else means / factors
        correction: NDArray[np.float32] = means @ weight - (smoothed @ restored) * scale
        return correction

    def _correct(self, node: QuantizableNode, correction: NDArray[np.float32]) -> None:
        """Add a correction to the bias of a product, if there is one."""
        if node.bias is not None:
            node.proto.input[2] = self._corrected_bias(node, node.bias, correction)
            return
        readers = self.readers.get(node.proto.output[0], [])
        if len(readers) != 1 or readers[0].op_type != "Add":
            return  # there is no bias, and a node for the correction would cost more than it gains
        for index, name in enumerate(readers[0].input):
            if name in self.initializers and list(self.initializers[name].dims) == [len(correction)]:
                readers[0].input[index] = self._corrected_bias(node, name, correction)

    def _corrected_bias(self, node: QuantizableNode, bias: str, correction: NDArray[np.float32]) -> str:
        name = f"{bias}:{node.activation}:corrected"
        if name not in self.initializers:
            value = read_tensor(self.initializers[bias], self.folder)
            self._add(name, (value + correction).astype(np.float32))
        return name

    def _output(self, node: QuantizableNode) -> None:
        """Quantise a convolution's result, as its integer kernel does. Its readers get the dequantised tensor."""
        tensor = node.proto.output[0]
        scale, zero = self._parameters(tensor)
        raw, quantized = f"{tensor}:raw", f"{tensor}:raw:u8"
        node.proto.output[0] = raw
        self.after[raw] = [
            make_node("QuantizeLinear", [raw, scale, zero], [quantized]),
            make_node("DequantizeLinear", [quantized, scale, zero], [tensor]),
        ]
        self.activations[tensor] = tensor  # its readers need no Q/DQ of their own

    def _quantized_weight(self, name: str, axis: int) -> tuple[str, NDArray[np.float32]]:
        """The stem and the scales of a weight's INT8 initialisers, `STEM:s8` and `STEM:scale`, made once per axis."""
        if (name, axis) not in self.quantized_weights:
            taken = any(weight == name for weight, _ in self.quantized_weights)
            stem = f"{name}:axis{axis}" if taken else name
            value = read_tensor(self.initializers[name], self.folder)
            if name in self.factors:
                shape = [1] * value.ndim
                shape[1 - axis] = -1
                value = value * self.factors[name].reshape(shape)
            quantized, scale = quantize_weight(
                value, axis, paired=name in self.paired, fp16=self.scheme.fp16_activations
            )
            self._add(f"{stem}:s8", quantized)
            self._add(f"{stem}:scale", scale)
            self.quantized_weights[name, axis] = stem, scale
        return self.quantized_weights[name, axis]

    def _weight(self, node: QuantizableNode) -> str:
        key = node.weight, node.channel_axis
        if key not in self.weights:
            stem, scale = self._quantized_weight(*key)
            self.weights[key] = f"{stem}:restored"
            if self._quantizes(node) or self.scheme.fp16_activations or self._large(node):
                self._add(f"{stem}:zero", np.zeros(len(scale), np.int8))
                inputs = [f"{stem}:s8", f"{stem}:scale", f"{stem}:zero"]
                nodes = [make_node("DequantizeLinear", inputs, [self.weights[key]], axis=node.channel_axis)]
            else:
                # Not DequantizeLinear, which ONNX Runtime keeps for its integer kernels and computes at every run.
                # These nodes are folded when the graph is opened: later they cost memory but no time.
                shape = [1] * len(self.initializers[node.weight].dims)
                shape[node.channel_axis] = -1
                self._add(f"{stem}:scales", scale.reshape(shape))
                nodes = [
                    make_node("Cast", [f"{stem}:s8"], [f"{stem}:f32"], to=TensorProto.FLOAT),
                    make_node("Mul", [f"{stem}:f32", f"{stem}:scales"], [self.weights[key]]),
                ]
            self.first += nodes
        return self.weights[key]

    def _large(self, node: QuantizableNode) -> bool:
        """Whether a convolution's weight is dequantised at every run, so that it stays INT8 in memory."""
        return node.kind is NodeKind.CONV and math.prod(self.initializers[node.weight].dims) >= LARGE_KERNEL

    def _bias(self, node: QuantizableNode, correction: NDArray[np.float32] | None) -> str:
        """The name of the bias in INT32, at the product of the operands' scales: integer kernels add it to sums."""
        assert node.bias is not None
        activation_scale, _ = activation_parameters(self.ranges[node.activation].low, self.ranges[node.activation].high)
        scale = (activation_scale * self._quantized_weight(node.weight, node.channel_axis)[1]).astype(np.float32)
        value = read_tensor(self.initializers[node.bias], self.folder).astype(np.float64)
        if correction is not None:
            value = value + correction
        steps = np.round(value / scale)
        if np.abs(steps).max(initial=0) >= 2**31:
            return node.bias  # it stays in float32, which is correct, though no integer kernel takes it
        name = f"{node.bias}:{node.activation}"
        restored = f"{name}:restored"
        if f"{name}:s32" not in self.initializers:
            self._add(f"{name}:s32", steps.astype(np.int32))
            self._add(f"{name}:scale", scale)
            self._add(f"{name}:zero", np.zeros(len(scale), np.int32))
            inputs = [f"{name}:s32", f"{name}:scale", f"{name}:zero"]
            self.first.append(make_node("DequantizeLinear", inputs, [restored], axis=0))
        return restored

    def _embedding(self, node: QuantizableNode) -> None:
        """Rows in INT8 with a scale each; only the rows that are read are dequantised."""
        indices, output = node.activation, node.proto.output[0]
        stem, _ = self._quantized_weight(node.weight, 0)
        node.proto.input[0], node.proto.output[0] = f"{stem}:s8", f"{output}:s8"
        self.after[f"{output}:s8"] = [
            make_node("Cast", [f"{output}:s8"], [f"{output}:f32"], to=TensorProto.FLOAT),
            make_node("Gather", [f"{stem}:scale", indices], [f"{output}:scale"]),
            make_node("Unsqueeze", [f"{output}:scale", self._last_axis()], [f"{output}:scales"]),
            make_node("Mul", [f"{output}:f32", f"{output}:scales"], [output]),
        ]

    def _last_axis(self) -> str:
        if "axis:last" not in self.initializers:
            self._add("axis:last", np.array([-1], np.int64))
        return "axis:last"

    def _add(self, name: str, value: NDArray[Any]) -> None:
        tensor = numpy_helper.from_array(value, name)
        self.graph.initializer.append(tensor)
        self.initializers[name] = self.graph.initializer[-1]

    def _drop_unused(self) -> None:
        kept = [node for node in self.graph.node if node.output[0] not in self.replaced]
        nodes = [*kept, *self.first]
        nodes += [node for added in (*self.after.values(), *self.replaced.values()) for node in added]
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _place(self) -> None:
        """Insert the new nodes behind those that they read from, so that the graph stays in topological order."""
        ordered = list(self.first)
        for value in self.graph.input:
            ordered += self.after.get(value.name, [])
        for node in self.graph.node:
            ordered += self.replaced.get(node.output[0], [node])
            for output in node.output:
                ordered += self.after.get(output, [])
        replace_nodes(self.graph, ordered)
