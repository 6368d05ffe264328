"""What became of every ONNX node, read from what the library says while it parses and builds.

In: the lines of a verbose log, and the engine's layers as the log or the engine inspector prints them. Out: a fate per
node, layers by kind and by precision, and the memory that the builder reports. None of it needs a GPU; times do.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

METADATA = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
PARSING = re.compile(r"Parsing node: (.*) \[(\w+)\]$")
REGISTERED = re.compile(r"Registering layer: (.*) for ONNX node: (.*)$")
INPUTS = re.compile(r"(.*) \[\w+\] (inputs|outputs): (.*)$")
TENSOR = re.compile(r"(?:^|, )\[(.*?) -> \(")
ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")
WEIGHTS = re.compile(r"Total Weights Memory: (\d+) bytes")
PEAK = re.compile(r"Peak memory usage of TRT CPU/GPU memory allocators: CPU (\d+) MiB, GPU (\d+) MiB")

# Operators that move values and compute none, so that a compiler may do without them.
MOVES = frozenset(
    {"Reshape", "Transpose", "Slice", "Split", "Concat", "Squeeze", "Unsqueeze", "Expand", "Tile", "Gather", "GatherND"}
    | {"Cast", "CastLike", "Identity", "Pad", "Flatten"}
)
OF_SEVERAL = frozenset({"Max", "Min", "Sum", "Mean"})  # of one input they are that input


@dataclass(frozen=True)
class Node:
    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Layer:
    """One layer of an engine; precision: of its first output, as the library names it."""

    kind: str
    precision: str
    nodes: frozenset[str]


def read_nodes(lines: Iterable[str]) -> tuple[list[Node], frozenset[str]]:
    """The nodes that the parser read, and which of them became layers of the network."""
    operators: dict[str, str] = {}
    tensors: dict[tuple[str, str], tuple[str, ...]] = {}
    registered = set()
    for line in lines:
        if match := PARSING.match(line):
            operators[match[1]] = match[2]
        elif match := REGISTERED.match(line):
            registered.add(match[2])
        elif match := INPUTS.match(line):
            tensors[match[1], match[2]] = tuple(TENSOR.findall(match[3]))
    nodes = [
        Node(name, operator, tensors.get((name, "inputs"), ()), tensors.get((name, "outputs"), ()))
        for name, operator in operators.items()
    ]
    return nodes, frozenset(registered)


def read_layers(lines: Iterable[str]) -> list[Layer]:
    """The engine's layers from the log: `Layers:` and one line each."""
    for text in lines:
        if not text.startswith("Layers:"):
            continue
        layers = []
        for line in text.splitlines():
            kind = re.search(r"LayerType: (\w+)", line)
            if kind is None:
                continue
            outputs = line[line.index("Outputs:") :] if "Outputs:" in line else ""
            precision = re.search(r"Datatype: (\w+)", outputs)
            layers.append(Layer(kind[1], precision[1] if precision else "", frozenset(METADATA.findall(line))))
        return layers
    return []


def inspected_layers(information: str) -> list[Layer]:
    """The engine's layers from the JSON of an engine inspector, profiling verbosity DETAILED."""
    layers = []
    for entry in json.loads(information).get("Layers", []):
        if not isinstance(entry, dict):
            continue  # names alone, where the engine was built without details
        outputs = entry.get("Outputs") or [{}]
        precision = str(outputs[0].get("Datatype") or outputs[0].get("Format/Datatype") or "").split(" ")[-1]
        nodes = frozenset(METADATA.findall(str(entry.get("Metadata", ""))))
        layers.append(Layer(str(entry.get("LayerType", "")), precision, nodes))
    return layers


def static_nodes(nodes: Sequence[Node]) -> frozenset[str]:
    """Nodes whose results depend on no input's values: constants, shapes, and arithmetic on those alone."""
    made = {tensor for node in nodes for tensor in node.outputs}
    varying = {tensor for node in nodes for tensor in node.inputs} - made - _initializers(nodes)
    static = set()
    for node in nodes:
        if node.operator in ("Constant", "Shape") or not varying.intersection(node.inputs):
            static.add(node.name)
        else:
            varying.update(node.outputs)
    return frozenset(static)


def _initializers(nodes: Sequence[Node]) -> frozenset[str]:
    return frozenset(tensor for node in nodes if node.operator == "Initializer" for tensor in node.outputs)


def fates(lines: Sequence[str], layers: Sequence[Layer]) -> list[tuple[Node, str]]:
    """Every node with its fate.

    `layer`: an engine layer names it. `fused`: it was compiled into a block of layers none of which names it alone.
    `folded`: computed while building, because it depends on shapes and constants only, or moves values that need not
    move. `constant`: the parser keeps its value. `lost`: none of these; a build with such a node is refused.
    """
    nodes, registered = read_nodes(lines)
    initializers = (line.removeprefix("Importing initializer: ") for line in lines if line.startswith("Importing init"))
    known = [Node("", "Initializer", (), tuple(initializers)), *nodes]
    static = static_nodes(known)
    in_layers = frozenset().union(*(layer.nodes for layer in layers)) if layers else frozenset()
    fused = {name for line in lines if line.startswith("ForeignNode") for name in METADATA.findall(line)}
    found = []
    for node in nodes:
        if node.name in in_layers:
            fate = "layer"
        elif node.name in fused:
            fate = "fused"
        elif node.name not in registered and node.name in static:
            fate = "constant"
        elif node.name in static or node.operator in MOVES or (node.operator in OF_SEVERAL and len(node.inputs) == 1):
            fate = "folded"
        else:
            fate = "lost"
        found.append((node, fate))
    return found


def report(lines: Sequence[str], layers: Sequence[Layer]) -> dict[str, Any]:
    """The part of a build's report that the library tells, ready for JSON."""
    nodes = fates(lines, layers)
    joined = "\n".join(line for line in lines if "Memory" in line or "Peak memory" in line)
    weights, peaks = WEIGHTS.findall(joined), PEAK.findall(joined)
    return {
        "fates": dict(Counter(fate for _, fate in nodes)),
        "nodes": [{"name": node.name, "operator": node.operator, "fate": fate} for node, fate in nodes],
        "layers": len(layers),
        "layers_by_kind": dict(Counter(layer.kind for layer in layers).most_common()),
        "layers_by_precision": dict(Counter(layer.precision for layer in layers if layer.precision).most_common()),
        "activation_bytes": [int(number) for number in ACTIVATIONS.findall(joined)],
        "weight_bytes": int(weights[-1]) if weights else None,
        "builder_peak_bytes": int(peaks[-1][0]) * 2**20 if peaks else None,
    }
