"""Write a scheme of reduced precision into an ONNX graph.

In: a graph in float32, its scheme, and the ranges of its activations. Out: the graph with FP16 or INT8 initialisers and
the nodes that the scheme needs. The types in the graph are its precision; no flag says it. int8.py writes INT8,
convolutions.py INT8 with ranges per channel, int4.py INT4, fp16.py FP16 tensors, kv_cache.py a smaller KV cache.
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
from hart_edge.calib.rewrite.convolutions import shared_weights, write_convolutions
from hart_edge.calib.rewrite.fp16 import fp16_weight, to_fp16
from hart_edge.calib.rewrite.int4 import linear_weights, write_blocks
from hart_edge.calib.rewrite.int8 import Int8Rewriter
from hart_edge.calib.rewrite.kv_cache import shrink_cache
from hart_edge.calib.rewrite.nodes import make_node, replace_nodes
from hart_edge.calib.scheme import EXACT_AFTER, CacheForm, Scheme


def apply_scheme(
    model: onnx.ModelProto,
    scheme: Scheme,
    ranges: Mapping[str, tuple[float, ...] | ActivationRange],
    folder: Path = Path(),
    wide: Collection[str] = frozenset(),
    excluded: Collection[str] = frozenset(),
    weight_only: Collection[str] = frozenset(),
    *,
    cache: CacheForm = CacheForm.FLOAT32,
) -> onnx.ModelProto:
    """A copy of the graph in a scheme. Raises BuildError where a range is missing or a weight does not fit.

    folder: of the weights that lie outside the model; wide: tensors whose values may leave the range of FP16;
    excluded: weights that stay out of INT8 together with their activations; weight_only: weights that become INT8 while
    their activations do not, or that are excluded as well where activations are FP16; cache: how the KV cache is held,
    in every scheme but float32 and those with FP16 activations.
    """
    if scheme is Scheme.FLOAT32:
        return model
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    if scheme is Scheme.FLOAT16_WEIGHTS:
        _weights_to_fp16(rewritten, folder)
    elif scheme is Scheme.INT4_BLOCKS:
        linear = linear_weights(rewritten.graph)
        Int8Rewriter(rewritten, Scheme.INT8_WEIGHTS, {}, folder, {*excluded, *linear}).rewrite()
        write_blocks(rewritten, folder, excluded)
    elif scheme is Scheme.U8S8_CHANNELS:
        entries = {name: ActivationRange(*entry) for name, entry in ranges.items()}
        write_convolutions(rewritten, entries, folder, {*excluded, *weight_only})
        Int8Rewriter(rewritten, Scheme.INT8_WEIGHTS, {}, folder, excluded).rewrite()
    elif scheme.precision is Precision.INT8:
        if scheme.fp16_activations:  # engines have no products of INT8 weights with other activations
            excluded = {*excluded, *weight_only}
        if scheme is Scheme.S8S8_CHANNELS:
            excluded = {*excluded, *shared_weights(model.graph)}
        Int8Rewriter(rewritten, scheme, ranges, folder, excluded, weight_only).rewrite()
    if scheme.fp16_activations:
        exact_after = None if scheme is Scheme.FLOAT16_PRODUCTS else EXACT_AFTER.get(model.graph.name)
        to_fp16(rewritten, folder, exact_after, wide)
    else:
        shrink_cache(rewritten, cache)
    return rewritten


def _weights_to_fp16(model: onnx.ModelProto, folder: Path) -> None:
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or math.prod(tensor.dims) < SMALLEST_WEIGHT:
            continue
        value = read_tensor(tensor, folder)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(fp16_weight(graph.name, name, value), f"{name}:fp16"))
        casts.append(make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    replace_nodes(graph, [*casts, *graph.node])
