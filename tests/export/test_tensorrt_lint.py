"""The lint for TensorRT 10.x and 11.x: what each rule finds, and that all graphs of a bundle pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper

from hart_edge.bundle.manifest import ComponentName, Precision, Target
from hart_edge.bundle.verify import open_bundle
from hart_edge.calib.graph_files import read_graph
from hart_edge.calib.quantizable_nodes import find_quantizable_nodes
from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.scheme import Scheme, scheme_of
from hart_edge.engines.registry import REGISTRY
from hart_edge.engines.tensorrt.facts import PARSERS
from hart_edge.errors import BuildError
from hart_edge.export.tensorrt_lint.lint import lint, require_clean

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
WEIGHT = numpy_helper.from_array(np.ones((8, 8), np.float32), "weight")


def constant(name: str, value: object, dtype: type = np.int64) -> TensorProto:
    return numpy_helper.from_array(np.array(value, dtype), name)


def node(operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: object) -> NodeProto:
    return helper.make_node(operator, inputs, outputs, name=f"node_{outputs[0]}", **attributes)


def findings(
    folder: Path,
    nodes: Sequence[NodeProto],
    *constants: TensorProto,
    dtype: int = FLOAT,
    out: int = FLOAT,
    opset: int = 20,
    domain: str = "",
) -> list[str]:
    """Findings for a graph x (4, 8) -> y, the same in both major versions."""
    values = [helper.make_tensor_value_info("x", dtype, [4, 8]), helper.make_tensor_value_info("y", out, None)]
    graph = helper.make_graph(list(nodes), "small", values[:1], values[1:], list(constants))
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    path = folder / "small.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    found = [lint(path, PARSERS[major]) for major in (10, 11)]
    assert [text.replace("11.x", "10.x") for text in found[1]] == found[0]
    return found[0]


def quantized(
    scale: float = 0.5, zero: int = 0, dtype: type = np.int8, second: float | None = None
) -> list[TensorProto]:
    return [
        WEIGHT,
        constant("scale", scale, np.float32),
        constant("zero", zero, dtype),
        constant("scale.2", scale if second is None else second, np.float32),
    ]


QDQ = [
    node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
    node("DequantizeLinear", ["q", "scale.2", "zero"], ["dq"]),
    node("MatMul", ["dq", "weight"], ["y"]),
]


def test_clean_graphs(tmp_path: Path) -> None:
    assert findings(tmp_path, [node("MatMul", ["x", "weight"], ["y"])], WEIGHT) == []
    assert findings(tmp_path, QDQ, *quantized()) == []
    pixels = [node("Floor", ["x"], ["level"]), node("Cast", ["level"], ["y"], to=TensorProto.UINT8)]
    assert findings(tmp_path, pixels, out=TensorProto.UINT8) == []


@pytest.mark.parametrize(
    ("nodes", "constants", "finding"),
    [
        ([node("Erf", ["x"], ["y"])], [], "node node_y (Erf): no operator of TensorRT's parser, or none that these"),
        (
            [
                node("Cast", ["x"], ["i"], to=INT64),
                node("CumSum", ["i", "axis"], ["s"]),
                node("Cast", ["s"], ["y"], to=FLOAT),
            ],
            [constant("axis", 1)],
            "node node_s (CumSum): reads INT64, and TensorRT takes FLOAT, FLOAT16",
        ),
        (
            [node("TopK", ["x", "k"], ["y", "places"])],
            [constant("k", [3840])],
            "node node_y (TopK): K is 3840, and TensorRT takes less than 3840",
        ),
        (
            [node("TopK", ["x", "k"], ["y", "places"], sorted=0)],
            [constant("k", [2])],
            "node node_y (TopK): sorted must be 1",
        ),
        (
            [node("Shape", ["x"], ["s"], end=1), node("TopK", ["x", "s"], ["y", "places"])],
            [],
            "node node_y (TopK): input s must be a constant",
        ),
        (
            [node("Cast", ["x"], ["u"], to=TensorProto.UINT8), node("Cast", ["u"], ["y"], to=FLOAT)],
            [],
            "node node_u (Cast): makes UINT8 that is not an output of the graph straight from a Cast",
        ),
        (
            [node("Cast", ["x"], ["i"], to=TensorProto.INT8), node("Cast", ["i"], ["y"], to=FLOAT)],
            [],
            "node node_i (Cast): makes INT8, which only QuantizeLinear may",
        ),
        (
            [node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE), node("Cast", ["d"], ["y"], to=FLOAT)],
            [],
            "node node_d (Cast): makes DOUBLE",
        ),
        (
            [node("Cast", ["x"], ["h"], to=TensorProto.FLOAT16), node("Add", ["x", "h"], ["y"])],
            [],
            "node node_y (Add): mixes FLOAT and FLOAT16, which strongly typed networks refuse",
        ),
        (
            [node("Reshape", ["x", "shape"], ["nine"]), node("Reshape", ["nine", "back"], ["y"])],
            [constant("shape", [4, 8, 1, 1, 1, 1, 1, 1, 1]), constant("back", [4, 8])],
            "tensor nine has 9 dimensions, and TensorRT has 8",
        ),
        (
            [node("Reshape", ["x", "shape"], ["map"]), node("Resize", ["map", "", "scales"], ["y"], mode="cubic")],
            [constant("shape", [1, 1, 4, 8]), constant("scales", [1, 1, 2, 2], np.float32)],
            "node node_y (Resize): mode cubic is not supported",
        ),
        (QDQ, quantized(zero=3), "node node_q (QuantizeLinear): its zero point is not zero: TensorRT quantises symm"),
        (QDQ, quantized(dtype=np.uint8), "node node_q (QuantizeLinear): its zero point is UINT8, and TensorRT quant"),
        (QDQ, quantized(scale=0.0), "node node_q (QuantizeLinear): scales must be positive and finite"),
        (QDQ, quantized(second=0.25), "node node_q (QuantizeLinear): its scale differs from that of node_dq"),
        (
            [*QDQ[:2], node("Sigmoid", ["dq"], ["y"])],
            quantized()[1:],
            "node node_dq (DequantizeLinear): feeds node_y (Sigmoid); INT8 kernels exist for Conv, Gemm, MatMul",
        ),
        (
            [QDQ[0], node("Cast", ["q"], ["y"], to=FLOAT)],
            quantized()[1:3],
            "node node_q (QuantizeLinear): its INT8 is read by node_y (Cast) and not by DequantizeLinear alone",
        ),
    ],
)
def test_what_each_rule_finds(
    tmp_path: Path, nodes: list[NodeProto], constants: list[TensorProto], finding: str
) -> None:
    found = findings(tmp_path, nodes, *constants)
    assert any(text.startswith(finding) for text in found), found


def test_weights_have_a_scale_per_output_channel(tmp_path: Path) -> None:
    def dequantized(axis: int, count: int = 8) -> list[str]:
        nodes = [
            node("DequantizeLinear", ["w", "scales", "zeros"], ["weight"], axis=axis),
            node("MatMul", ["x", "weight"], ["y"]),
        ]
        constants = [constant("w", np.ones((8, 8)), np.int8), constant("scales", [0.5] * count, np.float32)]
        return findings(tmp_path, nodes, *constants, constant("zeros", [0] * count, np.int8))

    assert dequantized(1) == []
    assert dequantized(0) == [
        "node node_weight (DequantizeLinear): scales lie along axis 0 and not along the output channels of node_y"
    ]
    assert "node node_weight (DequantizeLinear): 4 scales for 8 channels" in dequantized(1, 4)


def test_opsets_domains_and_names(tmp_path: Path) -> None:
    product = [node("MatMul", ["x", "weight"], ["y"])]
    assert findings(tmp_path, product, WEIGHT, opset=21) == [
        "opset 21, where TensorRT 10.x reads 9 to 20 in every release"
    ]
    assert findings(tmp_path, product, WEIGHT, domain="com.microsoft") == [
        "operators of the domain 'com.microsoft', which no TensorRT parser knows"
    ]
    nameless = [helper.make_node("MatMul", ["x", "weight"], ["y"])]
    unnamed = "nodes without a name of their own, whose fate no report could tell"
    assert findings(tmp_path, nameless, WEIGHT) == [unnamed]
    with pytest.raises(BuildError, match=rf"^small: TensorRT would refuse this graph: {unnamed} \(2 findings\)$"):
        require_clean(tmp_path / "small.onnx")


@pytest.mark.parametrize("target", [Target.TENSORRT, Target.TENSORRT_RTX])
@pytest.mark.parametrize("precision", list(Precision))
def test_the_shipped_model_is_clean(fp32_bundle: Path, tmp_path: Path, target: Target, precision: Precision) -> None:
    """All graphs of engines, which have the exact speed alone and select no tokens, in every scheme that they use, with
    invented ranges, since no rule reads their values."""
    components = [
        each for each in open_bundle(fp32_bundle).manifest.components if each.name is not ComponentName.SELECT
    ]
    assert len(components) == 9
    for component in components:
        model = onnx.load(fp32_bundle / component.file)
        scheme = scheme_of(component.name, precision, REGISTRY[target].graphs)
        ranges = {each.activation: (-1.0, 2.0) for each in find_quantizable_nodes(model.graph)}
        path = tmp_path / f"{component.name}.onnx"
        onnx.save_model(apply_scheme(model, scheme, ranges), path)
        require_clean(path)
        assert scheme is Scheme.FLOAT32 or precision is not Precision.FP32


def test_operators_for_x86_are_refused_for_tensorrt(fp32_bundle: Path, tmp_path: Path) -> None:
    model = read_graph(fp32_bundle / "graphs" / "context.onnx")
    ranges = {each.activation: (-1.0, 2.0) for each in find_quantizable_nodes(model.graph)}
    onnx.save_model(apply_scheme(model, Scheme.U8S8, ranges), tmp_path / "context.onnx")
    for major in (10, 11):
        found = lint(tmp_path / "context.onnx", PARSERS[major])
        assert any("zero point is UINT8, and TensorRT quantises to INT8" in finding for finding in found)
        assert any("reads INT32, and TensorRT takes INT8" in finding for finding in found)
    with pytest.raises(BuildError, match=r"^context: TensorRT would refuse this graph: node .* \(\d+ findings\)$"):
        require_clean(tmp_path / "context.onnx")
