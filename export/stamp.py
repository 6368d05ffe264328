"""The blocks of a transformer are alike: one is traced, and the others are stamped out after it.

In: the graph of the first block, and the module of all. Out: the same graph with all of them. Tracing a block costs
torch seconds, because every size in it is a symbol; copying its nodes costs nothing.
"""

from __future__ import annotations

import onnx_ir
from onnx_ir.tensor_adapters import TorchTensor

from hart_edge.export.graph_module import GraphModule

FIRST = "0"  # the part of a name that says to which block something belongs, as in transformer.blocks.0 and past_key.0


def stamp_blocks(model: onnx_ir.Model, graph: GraphModule) -> None:
    """Repeat the nodes of the first block for every further one, each reading what the one before it left in `hidden`.

    model: of graph.first_block(), as it was traced; it gets the inputs, outputs and weights of `graph`.
    """
    whole, weights = model.graph, dict(graph.named_parameters())
    entrance = whole.inputs[0]
    exit_ = _producer(whole.outputs[0]).inputs[0]  # hidden and null_hidden are parts of what the block leaves
    assert exit_ is not None
    block, own = _nodes_of_block(whole, entrance, exit_)
    tail = [(node, index) for node, index in exit_.uses() if node not in block]
    outputs = [value for value in whole.outputs if _is_first(value)]
    after, left = block[-1], exit_
    for number in range(1, graph.blocks):
        copies = {entrance: left}
        for value in own:
            copies[value] = _counterpart(value, number)
            if value in whole.inputs:
                whole.inputs.append(copies[value])
            else:
                name = copies[value].name or ""
                tensor = TorchTensor(weights[name], name=name)
                copies[value].const_value = tensor
                whole.register_initializer(copies[value])
        for node in block:
            made = [_counterpart(value, number) for value in node.outputs]
            copies.update(zip(node.outputs, made, strict=True))
            inputs = [None if value is None else copies.get(value, value) for value in node.inputs]
            copy = onnx_ir.Node(node.domain, node.op_type, inputs, node.attributes, outputs=made)
            whole.insert_after(after, copy)
            after = copy
        whole.outputs.extend(copies[value] for value in outputs)
        left = copies[exit_]
    for node, index in tail:
        node.replace_input_with(index, left)


def _nodes_of_block(
    whole: onnx_ir.Graph, entrance: onnx_ir.Value, exit_: onnx_ir.Value
) -> tuple[list[onnx_ir.Node], list[onnx_ir.Value]]:
    """The nodes that compute the block's hidden states, keys and values, and what only this block reads.

    Sizes are the same for all blocks, so what is computed from sizes only is shared.
    """
    wanted = {_producer(value) for value in whole.outputs if _is_first(value)} | {_producer(exit_)}
    for node in reversed(list(whole)):
        if node in wanted:
            makers = (value.producer() for value in node.inputs if value is not None)
            wanted.update(maker for maker in makers if maker is not None)
    own = [value for value in (*whole.inputs, *whole.initializers.values()) if _is_first(value)]
    reached, block = {entrance, *own}, []
    for node in whole:
        if node in wanted and node.op_type != "Shape" and not reached.isdisjoint(node.inputs):
            reached.update(node.outputs)
            block.append(node)
    return block, own


def _producer(value: onnx_ir.Value) -> onnx_ir.Node:
    node = value.producer()
    assert node is not None, f"{value.name} is computed by no node"
    return node


def _is_first(value: onnx_ir.Value) -> bool:
    return FIRST in (value.name or "").split(".")


def _counterpart(value: onnx_ir.Value, number: int) -> onnx_ir.Value:
    """The value that stands in another block for one of the first."""
    parts = (value.name or "").split(".")
    if FIRST in parts:
        parts[parts.index(FIRST)] = str(number)
    else:
        parts.append(str(number))
    return onnx_ir.Value(name=".".join(parts), shape=value.shape, type=value.type)
