"""The nodes of a graph that is rewritten: new ones with names of their own, and a new list of them."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import helper


def make_node(operator: str, inputs: list[str], outputs: list[str], **attributes: int) -> onnx.NodeProto:
    """A node with a name that no other has: engine builders report nodes by name."""
    node = helper.make_node(operator, inputs, outputs, name=f"{operator}:{outputs[0]}")
    node.attribute.extend(helper.make_attribute(key, value) for key, value in sorted(attributes.items()))
    return node


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give a graph these nodes in place of its own. Clearing its list destroys its nodes, so all are copied first."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
