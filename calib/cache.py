"""Keys and values in FP16, in a graph that computes in float32: half the memory of the KV cache, and of handing it on.

In: a graph of any form whose other tensors are float32. Out: the same with FP16 inputs and outputs of the cache. New
keys and values are rounded where they join it, and attention casts what it reads.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto

from calib.forms import CACHE
from calib.half import SUFFIX
from calib.integer import make_node

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
# Bytes of the cache in float32 from which INT8 bundles hold it in FP16. For hart-emoji's 6 MB the casts, four a block,
# took 15 % of a picture's time.
HALVED_FROM = 2**25


def halve_cache(model: onnx.ModelProto) -> None:
    """Rewrite a graph in place; one without a cache stays as it is."""
    graph = model.graph
    values = [value for value in (*graph.input, *graph.output) if value.name.startswith(CACHE)]
    for value in values:
        value.type.tensor_type.elem_type = HALF
    names = {value.name for value in values}
    nodes = [each for node in graph.node for each in _rewritten(node, names)]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    del graph.value_info[:]  # they would say float32


def _rewritten(node: onnx.NodeProto, cache: set[str]) -> Iterator[onnx.NodeProto]:
    """A node and the casts around it. Every tensor of the cache has a float32 twin where a node needs one."""
    joins = node.op_type == "Concat" and node.output[0] in cache
    for index, name in enumerate(node.input):
        if joins and name not in cache:
            yield make_node("Cast", [name], [f"{name}{SUFFIX[HALF]}"], to=HALF)
            node.input[index] = f"{name}{SUFFIX[HALF]}"
        elif not joins and name in cache and node.op_type != "Shape":
            node.input[index] = f"{name}{SUFFIX[FLOAT]}"
    made = [name for name in node.output if name in cache]
    if joins:
        yield node
        yield from (make_node("Cast", [name], [f"{name}{SUFFIX[FLOAT]}"], to=FLOAT) for name in made)
        return
    for index, name in enumerate(node.output):
        if name in cache:
            node.output[index] = f"{name}{SUFFIX[FLOAT]}"
    yield node
    yield from (make_node("Cast", [f"{name}{SUFFIX[FLOAT]}"], [name], to=HALF) for name in made)
