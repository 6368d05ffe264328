"""What TensorRT 10.x and 11.x take, as data, for export/tensorrt_lint/lint.py. docs/engines.md has the sources.

OPERATORS holds the operators that the graphs of this project may use, each with the element types that the parser's
support matrix names. INT8, which only Q/DQ make, and UINT8, which only ends a graph, have rules of their own.
"""

from __future__ import annotations

FLOATS = frozenset({"FLOAT", "FLOAT16"})
NUMBERS = FLOATS | {"INT32", "INT64"}
ANY = NUMBERS | {"BOOL"}
BOOLS = frozenset({"BOOL"})

OPERATORS: dict[str, frozenset[str]] = {
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Neg", "Max", "Min", "Pow", "Range", "Pad"), NUMBERS),
    **dict.fromkeys(("ArgMax", "ArgMin", "TopK", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), NUMBERS),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceMean", "ReduceSum", "ReduceL2"), NUMBERS),
    **dict.fromkeys(("MatMul", "Gemm", "Conv", "Softmax", "Sigmoid", "Exp", "Log", "Sqrt", "Reciprocal"), FLOATS),
    **dict.fromkeys(("Cos", "Sin", "Clip", "Floor", "CumSum", "Resize", "QuantizeLinear"), FLOATS),
    **dict.fromkeys(("InstanceNormalization", "LayerNormalization"), FLOATS),
    **dict.fromkeys(("Concat", "Expand", "Gather", "GatherND", "Reshape", "Shape", "Slice", "Split", "Squeeze"), ANY),
    **dict.fromkeys(("Transpose", "Unsqueeze", "Where", "Tile", "Identity", "Constant", "Cast", "CastLike"), ANY),
    **dict.fromkeys(("And", "Or", "Not"), BOOLS),
    "DequantizeLinear": frozenset({"INT8"}),
}
# Inputs that hold sizes, axes or conditions and not the operator's data, by position.
SIDE_INPUTS: dict[str, frozenset[int]] = {
    "Reshape": frozenset({1}),
    "Expand": frozenset({1}),
    "Gather": frozenset({1}),
    "GatherND": frozenset({1}),
    "Slice": frozenset({1, 2, 3, 4}),
    "Split": frozenset({1}),
    "Squeeze": frozenset({1}),
    "Unsqueeze": frozenset({1}),
    "Tile": frozenset({1}),
    "TopK": frozenset({1}),
    "Pad": frozenset({1, 3}),
    "Resize": frozenset({1, 2, 3}),
    "Where": frozenset({0}),
    "CumSum": frozenset({1}),
    "ReduceMax": frozenset({1}),
    "ReduceMin": frozenset({1}),
    "ReduceMean": frozenset({1}),
    "ReduceSum": frozenset({1}),
    "ReduceL2": frozenset({1}),
    "QuantizeLinear": frozenset({1, 2}),
    "DequantizeLinear": frozenset({1, 2}),
}
# Inputs that must be known when the engine is built.
CONSTANT_INPUTS: dict[str, frozenset[int]] = {
    "CumSum": frozenset({1}),
    "TopK": frozenset({1}),
    "Squeeze": frozenset({1}),
    "Unsqueeze": frozenset({1}),
    "ReduceMax": frozenset({1}),
    "ReduceMin": frozenset({1}),
    "ReduceMean": frozenset({1}),
    "ReduceSum": frozenset({1}),
    "ReduceL2": frozenset({1}),
    "QuantizeLinear": frozenset({1, 2}),
    "DequantizeLinear": frozenset({1, 2}),
}
RESIZE = {"mode": {"nearest", "linear"}, "nearest_mode": {"floor", "ceil", "round_prefer_floor", "round_prefer_ceil"}}
WEIGHTED = frozenset({"MatMul", "Gemm", "Conv"})  # what INT8 kernels exist for
