"""A smaller KV cache in a graph that computes in float32: values in FP16, keys in FP16 or INT8.

In: a graph of any scheme with float32 activations. Out: the same with inputs and outputs for the cache in its form. New
keys and values are rounded where they leave the graph, and attention reads them rounded, its own with those of before:
so what is read is put together in the small type, and converted once.

INT8 keys are for models that make unit vectors of their keys, of which rotary embedding lets no channel grow beyond 1.
So their range is known without calibration, and queries, quantised as the graph runs, are multiplied with them as
integers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from hart_edge.bundle.plan import Dtype
from hart_edge.calib.rewrite.fp16 import FLOAT, FLOAT16, SUFFIX
from hart_edge.calib.rewrite.nodes import make_node, replace_nodes
from hart_edge.calib.scheme import CACHE, PAST_CACHE, CacheForm
from hart_edge.errors import BuildError

# Bytes of the cache in float32 from which on INT8 bundles hold it in a smaller type. For hart-emoji's 4 MB the casts
# took 15 % of a picture's time when every scale still wrote all of it.
SMALL_CACHE_FROM = 2**25
# Steps of an INT8 key from 0 to 1. Two neighbouring channels of a key come to at most sqrt(2), so with queries of 255
# the sum of two products stays below 2^15, which is all that x86 processors without VNNI can add.
KEY_STEPS = 90
STEP, STEP_ZERO = "key:step", "key:zero"

Array = NDArray[Any]


def in_cache(array: Array, dtype: str) -> Array:
    """Keys or values as a cache of that dtype holds them; what has the dtype already stays as it is."""
    if dtype == "int8" and array.dtype.kind == "f":
        return np.rint(array * np.float32(KEY_STEPS)).astype(np.int8)
    return array.astype(dtype, copy=False)


def from_cache(array: Array, reference: Array) -> Array:
    """What a graph made, as the numbers that the reference's float32 is to be compared with: float64."""
    exact = array.astype(np.float64)
    return exact / KEY_STEPS if array.dtype == np.int8 and reference.dtype.kind == "f" else exact


def shrink_cache(model: onnx.ModelProto, form: CacheForm) -> None:
    """Rewrite a graph in place; one without a cache stays as it is."""
    graph = model.graph
    cache = [each for each in (*graph.input, *graph.output) if each.name.startswith(CACHE)]
    if not cache or form is CacheForm.FLOAT32:
        return
    for value in cache:
        value.type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(form.dtype(value.name).value))
    keys = {each.name for each in cache if form.dtype(each.name) is Dtype.INT8}
    if keys:
        step, zero = np.array(1 / KEY_STEPS, np.float32), np.array(0, np.int8)
        graph.initializer.extend(numpy_helper.from_array(*each) for each in ((step, STEP), (zero, STEP_ZERO)))
    products = _products_of_keys(graph, keys)
    new = {each.name for each in graph.output if each.name.startswith(CACHE)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] in products:
            nodes += _integer_product(node)
        elif node.op_type == "Concat" and node.input[0].startswith(PAST_CACHE):
            nodes += [node] if node.input[0] in keys else _converted(node)
        else:
            nodes += _rounded(node, new, keys)
    replace_nodes(graph, nodes)
    del graph.value_info[:]  # its types would be out of date


def _products_of_keys(graph: onnx.GraphProto, keys: Collection[str]) -> set[str]:
    """The scores, products of queries and of keys that are INT8. Raises BuildError where these are read otherwise."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    found = set()
    for past in (each.name for each in graph.input if each.name in keys):
        (node,) = (each for each in readers[past] if each.op_type != "Shape")
        while node.op_type in ("Concat", "Transpose"):
            (node,) = readers[node.output[0]]
        if node.op_type != "MatMul":
            raise BuildError(f"{graph.name}: {past} is read by {node.op_type}, expected MatMul; please report it")
        found.add(node.output[0])
    return found


def _integer_product(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """A product of queries and INT8 keys: queries are quantised as it runs."""
    (queries, keys), scores = node.input, node.output[0]
    u8, scale, zero = (f"{queries}:dynamic:{part}" for part in ("u8", "scale", "zero"))
    return [
        make_node("DynamicQuantizeLinear", [queries], [u8, scale, zero]),
        make_node("MatMulInteger", [u8, keys, zero], [f"{scores}:s32"]),
        make_node("Cast", [f"{scores}:s32"], [f"{scores}:f32"], to=TensorProto.FLOAT),
        make_node("Mul", [scale, STEP], [f"{scores}:scale"]),
        make_node("Mul", [f"{scores}:f32", f"{scores}:scale"], [scores]),
    ]


def _converted(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """What puts the cache and its new rows together: in FP16, and converted after it."""
    whole = node.output[0]
    node.output[0] = f"{whole}{SUFFIX[FLOAT16]}"
    return [node, make_node("Cast", [node.output[0]], [whole], to=FLOAT)]


def _rounded(node: onnx.NodeProto, new: Collection[str], keys: Collection[str]) -> Iterator[onnx.NodeProto]:
    """A node, and behind it what rounds the new rows of the cache that it makes."""
    made = [name for name in node.output if name in new]
    for index, name in enumerate(node.output):
        node.output[index] = f"{name}{SUFFIX[FLOAT]}" if name in new else name
    yield node
    for name in made:
        exact = f"{name}{SUFFIX[FLOAT]}"
        if name in keys:
            yield make_node("QuantizeLinear", [exact, STEP, STEP_ZERO], [name])
        else:
            yield make_node("Cast", [exact], [name], to=FLOAT16)
