"""What ONNX Runtime makes of the shipped model's graphs, and of small ones in each form."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from calib.forms import Form
from calib.quantize import apply_form
from calib.ranges import ActivationRange
from tests.calib.kernels import FLOAT_KERNELS, INTEGER_KERNELS, optimised
from tests.calib.make_graphs import linear_model


@pytest.mark.parametrize("component", ["transformer", "text_model", "residual", "context"])
def test_built_graphs_run_on_integer_kernels(int8_bundle: Path, tmp_path: Path, component: str) -> None:
    """No product with a weight is left in float: such a layer would be slower than at fp32."""
    path = int8_bundle / "graphs" / f"{component}.onnx"
    graph = onnx.load(path).graph
    quantized = {tensor.name for tensor in graph.initializer if tensor.name.endswith(":s8")}
    restored = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in quantized}
    sites = sum(len(node.input) > 1 and node.input[1] in restored for node in graph.node)
    assert sites >= {"transformer": 50, "text_model": 21, "residual": 50, "context": 1}[component]
    found = optimised(tmp_path, path)
    assert {name: found[name] for name in FLOAT_KERNELS if found[name]} == {}
    assert sum(found[name] for name in INTEGER_KERNELS) == sites, found


@pytest.mark.parametrize("component", ["decoder", "encoder"])
def test_weights_of_built_graphs_are_restored_once(
    int8_bundle: Path, fp32_bundle: Path, tmp_path: Path, component: str
) -> None:
    """The convolutions see constants, and run on the same kernels as at fp32."""
    paths = [bundle / "graphs" / f"{component}.onnx" for bundle in (fp32_bundle, int8_bundle)]
    assert optimised(tmp_path, paths[0]) == optimised(tmp_path, paths[1])


@pytest.mark.parametrize("smoothed", [False, True])
def test_dynamic_products_are_integer_kernels(tmp_path: Path, smoothed: bool) -> None:
    """Quantised at run time and multiplied by one kernel each; two products of one activation quantise it once."""
    exponents = (4,) * 64 if smoothed else ()
    ranges = {name: ActivationRange(-4.0, 4.0, exponents) for name in "xr"}
    found = optimised(tmp_path, apply_form(linear_model(), Form.DYNAMIC, ranges))
    assert found.pop("DynamicQuantizeMatMul") == 2
    assert found == ({"Relu": 1, "Mul": 2} if smoothed else {"Relu": 1})
