"""Nodes of a graph that is rewritten: new ones with names of their own, and a list in place of the old one."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import helper


def make_node(operator: str, inputs: list[str], outputs: list[str], **attributes: int) -> onnx.NodeProto:
    """A node with a name of its own, which builders report: none of the exporter's, that may name the same output."""
    return helper.make_node(operator, inputs, outputs, name=f"{operator}:{outputs[0]}", **attributes)


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Let a graph have these nodes alone. They may be its own, which end with its list; so they are copied first."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
