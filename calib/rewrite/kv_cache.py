"""Keys and values in FP16, in a graph that computes in float32: half the memory of the KV cache.

In: a graph of any scheme with float32 activations. Out: the same with FP16 inputs and outputs for the cache. New keys
and values are rounded where they leave the graph, and attention casts the ones it reads.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from hart_edge.calib.rewrite.fp16 import FLOAT, FLOAT16, SUFFIX
from hart_edge.calib.rewrite.nodes import make_node, replace_nodes
from hart_edge.calib.scheme import CACHE

# Bytes of the cache in float32 from which on INT8 bundles hold it in FP16. For hart-emoji's 4 MB the casts took 15 % of
# a picture's time when every scale still wrote all of it.
FP16_CACHE_FROM = 2**25


def cache_to_fp16(model: onnx.ModelProto) -> None:
    """Rewrite a graph in place; one without a cache stays as it is."""
    graph = model.graph
    read, written = ([each for each in side if each.name.startswith(CACHE)] for side in (graph.input, graph.output))
    for value in (*read, *written):
        value.type.tensor_type.elem_type = FLOAT16
    names = {value.name for value in (*read, *written)}
    casts = [make_node("Cast", [each.name], [f"{each.name}{SUFFIX[FLOAT]}"], to=FLOAT) for each in read]
    replace_nodes(graph, [*casts, *(each for node in graph.node for each in _rewritten(node, names))])
    del graph.value_info[:]  # its types would be out of date


def _rewritten(node: onnx.NodeProto, cache: set[str]) -> Iterator[onnx.NodeProto]:
    """A node, which computes in float32, and the casts around it. Shape reads the cache in either type."""
    for index, name in enumerate(node.input):
        if name in cache and node.op_type != "Shape":
            node.input[index] = f"{name}{SUFFIX[FLOAT]}"
    made = [(index, name) for index, name in enumerate(node.output) if name in cache]
    for index, name in made:
        node.output[index] = f"{name}{SUFFIX[FLOAT]}"
    yield node
    for _, name in made:
        yield make_node("Cast", [f"{name}{SUFFIX[FLOAT]}"], [name], to=FLOAT16)
