"""Write a form of reduced precision into an ONNX graph.

In: an fp32 graph, its form, and the ranges of its activations. Out: the graph with FP16 or INT8 initialisers and the
nodes of that form. Precision is typed in the graph, never a flag. integer.py writes INT8, half.py FP16 tensors.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, numpy_helper

from hart_edge.bundle.manifest import Precision
from hart_edge.calib.calibrate.ranges import ActivationRange
from hart_edge.calib.graph_files import read_tensor
from hart_edge.calib.quantizable_nodes import SMALLEST_WEIGHT
from hart_edge.calib.rewrite.fp16 import half_weight, to_half
from hart_edge.calib.rewrite.int8 import Quantizer
from hart_edge.calib.rewrite.kv_cache import halve_cache
from hart_edge.calib.rewrite.nodes import make_node, replace_nodes
from hart_edge.calib.scheme import EXACT_AFTER, Scheme


def apply_form(
    model: onnx.ModelProto,
    form: Scheme,
    ranges: Mapping[str, tuple[float, ...] | ActivationRange],
    folder: Path = Path(),
    wide: Collection[str] = frozenset(),
    keep: Collection[str] = frozenset(),
    alone: Collection[str] = frozenset(),
    *,
    half_cache: bool = False,
) -> onnx.ModelProto:
    """A copy of the graph in a form. Raises BuildError where a range is missing or a weight does not fit.

    folder: where weights lie that the model has outside; wide: tensors that FP16 may not hold; keep: weights that INT8
    may not hold, nor what they are multiplied with; alone: weights that are not multiplied in INT8, and are held in it
    where the arithmetic around them is float32; half_cache: the KV cache is FP16 in any form but float32.
    """
    if form is Scheme.FLOAT32:
        return model
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    if form is Scheme.FLOAT16_WEIGHTS:
        _halve_weights(rewritten, folder)
    elif form.precision is Precision.INT8:
        kept = {*keep, *alone} if form.half else keep  # engines have no products of INT8 weights alone
        Quantizer(rewritten, form, ranges, folder, kept, alone).rewrite()
    if form.half:
        exact_after = None if form is Scheme.FLOAT16_PRODUCTS else EXACT_AFTER.get(model.graph.name)
        to_half(rewritten, folder, exact_after, wide)
    elif half_cache:
        halve_cache(rewritten)
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
        casts.append(make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    replace_nodes(graph, [*casts, *graph.node])
