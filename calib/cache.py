"""Keys and values in FP16, in a graph that computes in float32: half the memory of the KV cache, and of handing it on.

In: a graph of any form whose other tensors are float32. Out: the same with FP16 inputs and outputs of the cache. New
keys and values are rounded where they join it, and attention casts what it reads.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from calib.forms import CACHE
from calib.half import FLOAT, HALF, SUFFIX
from calib.nodes import make_node, replace_nodes

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
    replace_nodes(graph, [each for node in graph.node for each in _rewritten(node, names)])
    del graph.value_info[:]  # they would say float32


def _rewritten(node: onnx.NodeProto, cache: set[str]) -> Iterator[onnx.NodeProto]:
    """A node and the casts around it.

    What joins the cache does so in FP16; all other nodes compute in float32, from twins of what was joined. The inputs
    of the cache have no twins: they are joined, and asked for their shape.
    """
    if node.op_type == "Shape":
        yield node
        return
    joins = node.op_type == "Concat" and node.output[0] in cache
    for index, name in enumerate(node.input):
        if joins and name not in cache:
            node.input[index] = f"{name}{SUFFIX[HALF]}"
            yield make_node("Cast", [name], [node.input[index]], to=HALF)
        elif not joins and name in cache:
            node.input[index] = f"{name}{SUFFIX[FLOAT]}"
    made = [(index, name, f"{name}{SUFFIX[FLOAT]}") for index, name in enumerate(node.output) if name in cache]
    for index, _, twin in made:
        if not joins:
            node.output[index] = twin
    yield node
    for _, name, twin in made:
        yield make_node("Cast", [name], [twin], to=FLOAT) if joins else make_node("Cast", [twin], [name], to=HALF)
