"""Write 4-bit weights into an ONNX graph: matrix products become ONNX Runtime's MatMulNBits.

In: a graph in float32. Out: the same with every linear weight in blocks of 32 numbers along the contraction, each with
a scale and a zero point of its own; its kernel quantises activations to INT8, a block at a time, while it multiplies.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from hart_edge.calib.graph_files import read_tensor
from hart_edge.calib.quantizable_nodes import NodeKind, QuantizableNode, find_quantizable_nodes
from hart_edge.calib.rewrite.nodes import make_node, replace_nodes

BLOCK, LEVELS = 32, 16
ACCURACY_LEVEL = 4  # of the operator: INT8 activations
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8)  # of a block's range: the ends that are tried
DOMAIN = "com.microsoft"


def quantize_blocks(
    weight: NDArray[np.float32],
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]:
    """(K, N) -> as the operator takes them: numbers (N, blocks, 16), two a byte, the first in the low half; scales
    (N * blocks,); zero points (N * ceil(blocks / 2),), two a byte. A number is (q - zero) * scale.

    The range of every block is the one of SHARES with the least mean squared error.
    """
    inner, outer = weight.shape
    blocks = math.ceil(inner / BLOCK)
    rows = torch.from_numpy(np.ascontiguousarray(weight.T))  # (N, K)
    if inner % BLOCK:
        rows = torch.nn.functional.pad(rows, (0, blocks * BLOCK - inner))
    values = rows.view(outer, blocks, BLOCK)
    low, high = values.amin(-1, True).clamp(max=0), values.amax(-1, True).clamp(min=0)  # (N, blocks, 1)
    scale, zero = _parameters(low, high)
    least = _error(values, scale, zero)
    for share in SHARES[1:]:
        tried = _parameters(low * share, high * share)
        error = _error(values, *tried)
        better = error < least
        scale, zero = (torch.where(better, new, old) for new, old in zip(tried, (scale, zero), strict=True))
        least = torch.where(better, error, least)
    numbers = ((values / scale).round_().add_(zero)).clamp_(0, LEVELS - 1).to(torch.uint8)
    packed = numbers[..., 0::2] | (numbers[..., 1::2] << 4)
    zeros = torch.nn.functional.pad(zero[..., 0].to(torch.uint8), (0, blocks % 2))
    zeros = zeros[:, 0::2] | (zeros[:, 1::2] << 4)
    return packed.numpy(), scale.flatten().numpy(), zeros.flatten().numpy()


def _parameters(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = (high - low) / (LEVELS - 1)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # of a block of zeros
    return scale, (-low / scale).round().clamp(0, LEVELS - 1)


def _error(values: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """Of every block the sum of squares: (N, blocks, 1)"""
    restored = ((values / scale).round_().add_(zero)).clamp_(0, LEVELS - 1).sub_(zero).mul_(scale)
    return restored.sub_(values).square_().sum(-1, True)


def linear_weights(graph: onnx.GraphProto) -> frozenset[str]:
    """The weights that become 4-bit."""
    return frozenset(node.weight for node in find_quantizable_nodes(graph) if node.kind is NodeKind.LINEAR)


def write_blocks(model: onnx.ModelProto, folder: Path, excluded: Collection[str]) -> None:
    """Rewrite a graph in place. folder: of the weights that lie outside the model; excluded: those that stay."""
    graph = model.graph
    linear = [node for node in find_quantizable_nodes(graph) if node.kind is NodeKind.LINEAR]
    chosen = {node.proto.output[0]: node for node in linear if node.weight not in excluded}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    shapes: dict[tuple[str, int], tuple[int, int]] = {}
    nodes: list[onnx.NodeProto] = []
    for proto in graph.node:
        node = chosen.get(proto.output[0])
        if node is None:
            nodes.append(proto)
            continue
        key = (node.weight, node.channel_axis)
        if key not in shapes:
            value = read_tensor(tensors[node.weight], folder).astype(np.float32)
            value = value if node.channel_axis == 1 else value.T
            shapes[key] = (value.shape[0], value.shape[1])
            parts: tuple[NDArray[Any], ...] = quantize_blocks(value)
            for part, array in zip(("q4", "scales", "zeros"), parts, strict=True):
                graph.initializer.append(numpy_helper.from_array(array, f"{_stem(node)}:{part}"))
        nodes += _product(node, *shapes[key])
    replace_nodes(graph, nodes)
    used = {name for each in graph.node for name in each.input}
    for index in reversed([i for i, tensor in enumerate(graph.initializer) if tensor.name not in used]):
        del graph.initializer[index]
    if all(each.domain != DOMAIN for each in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))


def _stem(node: QuantizableNode) -> str:
    return node.weight if node.channel_axis == 1 else f"{node.weight}:axis0"


def _product(node: QuantizableNode, inner: int, outer: int) -> list[onnx.NodeProto]:
    """The operator in place of a MatMul or a Gemm, whose bias is added behind it."""
    output = node.proto.output[0]
    made = output if node.bias is None else f"{output}:product"
    inputs = [node.activation, *(f"{_stem(node)}:{part}" for part in ("q4", "scales", "zeros"))]
    attributes = {"K": inner, "N": outer, "bits": 4, "block_size": BLOCK, "accuracy_level": ACCURACY_LEVEL}
    product = make_node("MatMulNBits", inputs, [made], **attributes)
    product.domain = DOMAIN
    if node.bias is None:
        return [product]
    return [product, make_node("Add", [made, node.bias], [output])]
