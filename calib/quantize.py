"""Write a form of reduced precision into an ONNX graph.

In: an fp32 graph, its form, and the ranges of its activations. Out: the graph with FP16 or INT8 initialisers and the
QuantizeLinear / DequantizeLinear nodes of that form. Precision is typed in the graph, never a flag.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from calib.forms import EXACT_AFTER, Form
from calib.graph_files import read_tensor
from calib.half import FP16_SMALLEST, half_weight, to_half
from calib.sites import SMALLEST_WEIGHT, Site, SiteKind, find_sites
from runtime.errors import BuildError
from runtime.manifest import Precision

MOST_PAIR = 128  # 255 * 128 is below 2^15

Ranges = Mapping[str, tuple[float, float]]


def apply_form(
    model: onnx.ModelProto, form: Form, ranges: Ranges, folder: Path = Path(), wide: Collection[str] = frozenset()
) -> onnx.ModelProto:
    """A copy of the graph in a form. Raises BuildError where a range is missing or a weight does not fit.

    folder: where weights lie that the model has outside; wide: tensors that FP16 may not hold.
    """
    if form is Form.FLOAT32:
        return model
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    if form is Form.FLOAT16_WEIGHTS:
        _halve_weights(rewritten, folder)
    elif form.precision is Precision.INT8:
        _Quantizer(rewritten, form, ranges, folder).rewrite()
    if form.half:
        exact_after = None if form is Form.FLOAT16_PRODUCTS else EXACT_AFTER.get(model.graph.name)
        to_half(rewritten, folder, exact_after, wide)
    return rewritten


def _halve_weights(model: onnx.ModelProto, folder: Path) -> None:
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or math.prod(tensor.dims) < SMALLEST_WEIGHT:
            continue
        value = read_tensor(tensor, folder)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(half_weight(graph.name, name, value), f"{name}:fp16"))
        casts.append(_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    _prepend(graph, casts)


def quantize_weight(
    weight: NDArray[np.float32], axis: int, *, paired: bool = False, half: bool = False
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric INT8 per slice along an axis: values in [-127, 127] and one scale a slice, which FP16 holds if half.

    paired: for products with UINT8. x86 without VNNI (pmaddubsw) adds two neighbouring products in 16 bits and cuts
    what exceeds them, so two neighbours of one sign come to at most MOST_PAIR.
    """
    slices = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    scale = (np.abs(slices).max(axis=1) / 127).astype(np.float32)
    if paired:  # one less than the most, because rounding may add a half to each
        in_order = weight.ndim == 2  # kernels put the values of a convolution in an order of their own
        scale = np.maximum(scale, _largest_pair(slices, in_order) / (MOST_PAIR - 1)).astype(np.float32)
    scale[scale == 0] = 1  # a slice of zeros
    if half:
        scale = half_scale(scale)
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.round(weight / scale.reshape(shape)).clip(-127, 127).astype(np.int8), scale


def _largest_pair(slices: NDArray[np.float32], in_order: bool) -> NDArray[np.float32]:
    """Per row, the largest sum of two values of one sign: of values 2k and 2k + 1, or else of any two."""
    found = []
    for values in (np.maximum(slices, 0), np.maximum(-slices, 0)):
        if in_order:
            found.append(np.add.reduceat(values, np.arange(0, values.shape[1], 2), axis=1).max(axis=1))
        else:
            found.append(np.partition(values, -2, axis=1)[:, -2:].sum(axis=1))
    return np.maximum(*found)


def activation_parameters(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of UINT8 that hold [low, high] with an exact zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / 255 or 1.0  # a tensor that was always zero
    return np.float32(scale), np.uint8(np.clip(round(-low / scale), 0, 255))


def half_scale(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest scales that FP16 holds as normal numbers."""
    return np.maximum(scale, np.float32(FP16_SMALLEST)).astype(np.float16).astype(np.float32)


def symmetric_parameters(low: float, high: float) -> tuple[np.float32, np.int8]:
    """Scale, which FP16 holds, and zero point of INT8 that hold [low, high] with zero in the middle."""
    scale = np.array(max(abs(low), abs(high)) / 127 or 1.0, np.float32)
    return np.float32(half_scale(scale)), np.int8(0)


class _Quantizer:
    """Rewrites one graph. Every weight and activation gets one quantised twin, however many nodes use it."""

    def __init__(self, model: onnx.ModelProto, form: Form, ranges: Ranges, folder: Path) -> None:
        self.graph, self.form, self.ranges, self.folder = model.graph, form, ranges, folder
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        self.twins: dict[tuple[str, int], tuple[str, NDArray[np.float32]]] = {}  # (weight, axis) -> stem, scales
        self.paired = {  # weights that are multiplied with UINT8
            site.weight for site in find_sites(self.graph) if form is Form.U8S8 and form.quantizes(site.kind)
        }
        self.weights: dict[tuple[str, int], str] = {}  # (weight, axis) -> dequantised name
        self.activations: dict[str, str] = {}
        self.first: list[onnx.NodeProto] = []
        self.after: dict[str, list[onnx.NodeProto]] = {}  # nodes to put behind the one that makes a tensor

    def rewrite(self) -> None:
        for site in find_sites(self.graph):
            if not self.form.holds_int8(site.kind, site.weight):
                continue
            if site.kind is SiteKind.EMBEDDING:
                self._embedding(site)
                continue
            site.node.input[1] = self._weight(site)
            if not self.form.quantizes(site.kind):
                continue
            site.node.input[0] = self._activation(site.activation)
            if site.bias is not None and not self.form.half:
                site.node.input[2] = self._bias(site)
            if site.kind is SiteKind.CONV:
                self._output(site)
        self._drop_unused()
        self._place()

    def _parameters(self, tensor: str) -> tuple[str, str]:
        """Initialisers of an activation's scale and zero point."""
        if tensor not in self.ranges:
            raise BuildError(f"{self.graph.name}: calibration has no range for {tensor}; collect ranges of this model")
        parameters = symmetric_parameters if self.form is Form.S8S8 else activation_parameters
        scale, zero = parameters(*self.ranges[tensor])
        names = f"{tensor}:scale", f"{tensor}:zero"
        for name, value in zip(names, (np.array(scale), np.array(zero)), strict=True):
            if name not in self.initializers:
                self._add(name, value)
        return names

    def _activation(self, tensor: str) -> str:
        if tensor not in self.activations:
            scale, zero = self._parameters(tensor)
            quantized, restored = f"{tensor}:{'s8' if self.form is Form.S8S8 else 'u8'}", f"{tensor}:restored"
            nodes = [
                _node("QuantizeLinear", [tensor, scale, zero], [quantized]),
                _node("DequantizeLinear", [quantized, scale, zero], [restored]),
            ]
            self.after.setdefault(tensor, []).extend(nodes)
            self.activations[tensor] = restored
        return self.activations[tensor]

    def _output(self, site: Site) -> None:
        """Quantise a convolution's result, as its integer kernel does; readers see the restored tensor."""
        tensor = site.node.output[0]
        scale, zero = self._parameters(tensor)
        raw, quantized = f"{tensor}:raw", f"{tensor}:raw:u8"
        site.node.output[0] = raw
        self.after[raw] = [
            _node("QuantizeLinear", [raw, scale, zero], [quantized]),
            _node("DequantizeLinear", [quantized, scale, zero], [tensor]),
        ]
        self.activations[tensor] = tensor  # it has been through Q/DQ already

    def _twin(self, name: str, axis: int) -> tuple[str, NDArray[np.float32]]:
        """INT8 initialisers of a weight, `STEM:s8` and `STEM:scale`, made once for each axis that is asked for."""
        if (name, axis) not in self.twins:
            taken = any(weight == name for weight, _ in self.twins)
            stem = f"{name}:axis{axis}" if taken else name
            value = read_tensor(self.initializers[name], self.folder)
            quantized, scale = quantize_weight(value, axis, paired=name in self.paired, half=self.form.half)
            self._add(f"{stem}:s8", quantized)
            self._add(f"{stem}:scale", scale)
            self.twins[name, axis] = stem, scale
        return self.twins[name, axis]

    def _weight(self, site: Site) -> str:
        key = site.weight, site.channel_axis
        if key not in self.weights:
            stem, scale = self._twin(*key)
            self.weights[key] = f"{stem}:restored"
            if self.form.quantizes(site.kind) or self.form.half:
                self._add(f"{stem}:zero", np.zeros(len(scale), np.int8))
                inputs = [f"{stem}:s8", f"{stem}:scale", f"{stem}:zero"]
                nodes = [_node("DequantizeLinear", inputs, [self.weights[key]], axis=site.channel_axis)]
            else:
                # Not DequantizeLinear, which ONNX Runtime keeps for the integer kernels and computes at every run:
                # what can be folded when the graph is opened costs nothing later.
                shape = [1] * len(self.initializers[site.weight].dims)
                shape[site.channel_axis] = -1
                self._add(f"{stem}:scales", scale.reshape(shape))
                nodes = [
                    _node("Cast", [f"{stem}:s8"], [f"{stem}:f32"], to=TensorProto.FLOAT),
                    _node("Mul", [f"{stem}:f32", f"{stem}:scales"], [self.weights[key]]),
                ]
            self.first += nodes
        return self.weights[key]

    def _bias(self, site: Site) -> str:
        """INT32 with the product of the operands' scales, which integer kernels add before scaling back."""
        assert site.bias is not None
        activation_scale, _ = activation_parameters(*self.ranges[site.activation])
        scale = (activation_scale * self._twin(site.weight, site.channel_axis)[1]).astype(np.float32)
        value = read_tensor(self.initializers[site.bias], self.folder).astype(np.float64)
        steps = np.round(value / scale)
        if np.abs(steps).max(initial=0) >= 2**31:
            return site.bias  # stays in float32: correct, though not on the integer kernel
        name = f"{site.bias}:{site.activation}"
        restored = f"{name}:restored"
        if f"{name}:s32" not in self.initializers:
            self._add(f"{name}:s32", steps.astype(np.int32))
            self._add(f"{name}:scale", scale)
            self._add(f"{name}:zero", np.zeros(len(scale), np.int32))
            inputs = [f"{name}:s32", f"{name}:scale", f"{name}:zero"]
            self.first.append(_node("DequantizeLinear", inputs, [restored], axis=0))
        return restored

    def _embedding(self, site: Site) -> None:
        """Rows in INT8 with a scale each; only the rows that are read are restored."""
        indices, output = site.activation, site.node.output[0]
        stem, _ = self._twin(site.weight, 0)
        site.node.input[0], site.node.output[0] = f"{stem}:s8", f"{output}:s8"
        self.after[f"{output}:s8"] = [
            _node("Cast", [f"{output}:s8"], [f"{output}:f32"], to=TensorProto.FLOAT),
            _node("Gather", [f"{stem}:scale", indices], [f"{output}:scale"]),
            _node("Unsqueeze", [f"{output}:scale", self._last_axis()], [f"{output}:scales"]),
            _node("Mul", [f"{output}:f32", f"{output}:scales"], [output]),
        ]

    def _last_axis(self) -> str:
        if "axis:last" not in self.initializers:
            self._add("axis:last", np.array([-1], np.int64))
        return "axis:last"

    def _add(self, name: str, value: NDArray) -> None:
        tensor = numpy_helper.from_array(value, name)
        self.graph.initializer.append(tensor)
        self.initializers[name] = self.graph.initializer[-1]

    def _drop_unused(self) -> None:
        nodes = [*self.graph.node, *self.first, *(node for nodes in self.after.values() for node in nodes)]
        used = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _place(self) -> None:
        """Put the new nodes behind what they read, so that the graph stays in topological order."""
        ordered = list(self.first)
        for value in self.graph.input:
            ordered += self.after.get(value.name, [])
        for node in self.graph.node:
            ordered.append(node)
            for output in node.output:
                ordered += self.after.get(output, [])
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in ordered]
        del self.graph.node[:]
        self.graph.node.extend(copies)


def _node(operator: str, inputs: list[str], outputs: list[str], **attributes: int) -> onnx.NodeProto:
    """A node with a name of its own, which builders report: none of the exporter's, that may name the same output."""
    return helper.make_node(operator, inputs, outputs, name=f"{operator}:{outputs[0]}", **attributes)


def _prepend(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
