"""Kernels that ONNX Runtime chooses for the shipped model's graphs and for small ones; the Q/DQ that TensorRT gets."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from hart_edge.bundle.manifest import ComponentName
from hart_edge.bundle.verify import open_bundle
from hart_edge.calib.calibrate.collector import calibrated_tensors
from hart_edge.calib.calibrate.ranges import ActivationRange
from hart_edge.calib.quantizable_nodes import NodeKind, find_quantizable_nodes
from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.scheme import Scheme
from tests.calib.make_graphs import linear_model
from tests.calib.rewrite.kernels import FLOAT_KERNELS, INTEGER_KERNELS, optimised, optimised_graph


@pytest.mark.parametrize("component", ["transformer", "text_model", "residual", "context"])
def test_built_graphs_run_on_integer_kernels(int8_bundle: Path, tmp_path: Path, component: str) -> None:
    """Only the products that the manifest lists are computed in float."""
    path = int8_bundle / "graphs" / f"{component}.onnx"
    graph = onnx.load(path).graph
    quantized = {tensor.name for tensor in graph.initializer if tensor.name.endswith(":s8")}
    restored = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in quantized}
    nodes = sum(len(node.input) > 1 and node.input[1] in restored for node in graph.node)
    components = {str(each.name): each for each in open_bundle(int8_bundle).manifest.components}
    in_float = len(components[component].float_products)
    assert nodes + in_float >= {"transformer": 50, "text_model": 21, "residual": 50, "context": 1}[component]
    assert in_float == 0 or (component == "transformer" and in_float <= 20)
    found = optimised(tmp_path, path)
    assert sum(found[name] for name in FLOAT_KERNELS) == in_float
    assert sum(found[name] for name in INTEGER_KERNELS) == nodes, found


@pytest.mark.parametrize("component", ["transformer", "text_model", "residual", "context"])
def test_integer_kernels_multiply_uint8_by_int8(int8_bundle: Path, tmp_path: Path, component: str) -> None:
    """INT8 by INT8 is no faster than float32 on x86, and full-range UINT8 weights saturate without VNNI."""
    graph = optimised_graph(tmp_path, int8_bundle / "graphs" / f"{component}.onnx")
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type in INTEGER_KERNELS:
            weight, zero = INTEGER_KERNELS[node.op_type]
            operands = types[node.input[weight]], types[node.input[zero]]
            assert operands == (TensorProto.INT8, TensorProto.UINT8), node.name


def test_weights_of_built_graphs_are_restored_once(int8_bundle: Path, fp32_bundle: Path, tmp_path: Path) -> None:
    """The convolutions get constant weights, and run on the same kernels as in FP32."""
    paths = [bundle / "graphs" / "encoder.onnx" for bundle in (fp32_bundle, int8_bundle)]
    assert optimised(tmp_path, paths[0]) == optimised(tmp_path, paths[1])


def test_a_decoder_convolves_uint8_by_int8(int8_bundle: Path, fp32_bundle: Path, tmp_path: Path) -> None:
    """All but the exact convolutions and those of few channels, and where this machine prefers them, none."""
    whole = onnx.load(fp32_bundle / "graphs" / "decoder.onnx")
    nodes = [n for n in find_quantizable_nodes(whole.graph) if Scheme.U8S8_CHANNELS.quantizes(n.kind, n.weight)]
    exact = sum(n.kind is NodeKind.CONV for n in find_quantizable_nodes(whole.graph)) - len(nodes)
    ranges = dict.fromkeys(calibrated_tensors(whole, Scheme.U8S8_CHANNELS), ActivationRange(-3.0, 4.0))
    channels = {node.proto.output[0]: node_channels(whole.graph, node.weight) for node in nodes}
    ranges |= {
        name: ActivationRange(-3.0, 4.0, lows=(-3.0,) * count, highs=(4.0,) * count) for name, count in channels.items()
    }
    found = optimised(tmp_path, apply_scheme(whole, Scheme.U8S8_CHANNELS, ranges))
    upsampling = sum(node.op_type == "Resize" for node in whole.graph.node)
    assert found["QLinearConv"] == len(nodes) + 3 * upsampling > 40
    assert found["Conv"] == exact > 0
    assert found["Resize"] == found["Upsample"] == 0
    scheme = next(each.scheme for each in open_bundle(int8_bundle).manifest.components if each.name == "decoder")
    built = optimised(tmp_path, int8_bundle / "graphs" / "decoder.onnx")
    assert built["QLinearConv"] == (found["QLinearConv"] if scheme == Scheme.U8S8_CHANNELS else 0)


def node_channels(graph: onnx.GraphProto, weight: str) -> int:
    """Output channels of a convolution."""
    return next(tensor.dims[0] for tensor in graph.initializer if tensor.name == weight)


@pytest.mark.parametrize("smoothed", [False, True])
def test_dynamic_products_are_integer_kernels(tmp_path: Path, smoothed: bool) -> None:
    """Activations are quantized at run time, once even for two products; each product is one kernel."""
    exponents = (4,) * 64 if smoothed else ()
    ranges = {name: ActivationRange(-4.0, 4.0, exponents) for name in "xr"}
    found = optimised(tmp_path, apply_scheme(linear_model(), Scheme.DYNAMIC, ranges))
    assert found.pop("DynamicQuantizeMatMul") == 2
    assert found == ({"Relu": 1, "Mul": 2} if smoothed else {"Relu": 1})


@pytest.mark.parametrize("component", [str(name) for name in ComponentName])
def test_fused_kernels_of_float32_graphs(fp32_bundle: Path, tmp_path: Path, component: str) -> None:
    """x * sigmoid(x) becomes one kernel, and a norm that is one operator stays one."""
    path = fp32_bundle / "graphs" / f"{component}.onnx"
    source, graph = onnx.load(path).graph, optimised_graph(tmp_path, path)
    given, found = Counter(n.op_type for n in source.node), Counter(n.op_type for n in graph.node)
    gates = [n for n in source.node if n.op_type == "Mul" and any(is_sigmoid_of(source, *n.input, i) for i in (0, 1))]
    assert found["QuickGelu"] == len(gates) == given["Sigmoid"] and found["Sigmoid"] == 0
    for norm in ("LayerNormalization", "InstanceNormalization"):
        assert found[norm] == given[norm]
    domains = {node.domain for node in graph.node if node.op_type == "Conv"}
    assert domains <= {"com.microsoft.nchwc"}  # the layout of AVX; NEON has it from 1.23 on


def is_sigmoid_of(graph: onnx.GraphProto, first: str, second: str, index: int) -> bool:
    """Whether input `index` of a product is the sigmoid of the other."""
    gate, value = (first, second) if index == 0 else (second, first)
    return any(n.op_type == "Sigmoid" and n.output[0] == gate and n.input[0] == value for n in graph.node)


@pytest.mark.parametrize("component", ["transformer", "text_model", "residual", "context"])
def test_s8s8_reaches_tensorrt_as_pairs_on_both_operands(fp32_bundle: Path, component: str) -> None:
    """TensorRT computes a product in INT8 where DequantizeLinear feeds both operands directly."""
    model = onnx.load(fp32_bundle / "graphs" / f"{component}.onnx")
    expected = sum(node.kind is NodeKind.LINEAR for node in find_quantizable_nodes(model.graph))
    ranges = dict.fromkeys(calibrated_tensors(model, Scheme.S8S8), ActivationRange(-3.0, 4.0))
    graph = apply_scheme(model, Scheme.S8S8, ranges).graph
    makers = {output: node for node in graph.node for output in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    found = 0
    for node in graph.node:
        operands = [makers.get(name) for name in node.input[:2]]
        restored = [each is not None and each.op_type == "DequantizeLinear" for each in operands]
        if node.op_type not in ("MatMul", "Gemm") or not any(restored):
            continue
        assert all(restored), node.name
        activation, weight = operands
        assert makers[activation.input[0]].op_type == "QuantizeLinear", node.name
        assert constants[weight.input[0]].data_type == TensorProto.INT8, node.name
        for each in (activation, weight):
            zero = constants[each.input[2]]
            assert zero.data_type == TensorProto.INT8 and not onnx.numpy_helper.to_array(zero).any(), node.name
        found += 1
    assert found == expected
