"""The fate of every node, from logs as TensorRT-RTX 1.7 writes them and from the inspector's JSON."""

from __future__ import annotations

import json

from hart_edge.engines.tensorrt.report import Layer, fates, inspected_layers, read_layers, read_nodes, report

LOG = """\
Importing initializer: weight
Parsing node: shape [Shape]
shape [Shape] inputs: [x -> (-1, 64)[FLOAT]],\x20
Registering layer: shape for ONNX node: shape
shape [Shape] outputs: [size -> (2)[INT64]],\x20
Parsing node: one [Constant]
one [Constant] inputs:\x20
one [Constant] outputs: [one -> (1)[INT64]],\x20
Parsing node: twice [Mul]
twice [Mul] inputs: [size -> (2)[INT64]], [one -> (1)[INT64]],\x20
Registering layer: twice for ONNX node: twice
twice [Mul] outputs: [sizes -> (2)[INT64]],\x20
Parsing node: product [MatMul]
product [MatMul] inputs: [x -> (-1, 64)[FLOAT]], [weight -> (64, 64)[FLOAT]],\x20
Registering layer: product for ONNX node: product
product [MatMul] outputs: [h -> (-1, 64)[FLOAT]],\x20
Parsing node: turn [Transpose]
turn [Transpose] inputs: [h -> (-1, 64)[FLOAT]],\x20
Registering layer: turn for ONNX node: turn
turn [Transpose] outputs: [t -> (64, -1)[FLOAT]],\x20
Parsing node: gate [Sigmoid]
gate [Sigmoid] inputs: [t -> (64, -1)[FLOAT]],\x20
Registering layer: gate for ONNX node: gate
gate [Sigmoid] outputs: [g -> (64, -1)[FLOAT]],\x20
Parsing node: drop [Exp]
drop [Exp] inputs: [g -> (64, -1)[FLOAT]],\x20
Registering layer: drop for ONNX node: drop
drop [Exp] outputs: [y -> (64, -1)[FLOAT]],\x20
ForeignNode {ForeignNode[product...gate]} [profile 0] metadata: [ONNX Layer: product][ONNX Layer: gate]
Total Activation Memory: 4096 bytes
Total Activation Memory: 8192 bytes
Total Weights Memory: 16384 bytes
[MemUsageStats] Peak memory usage of TRT CPU/GPU memory allocators: CPU 3 MiB, GPU 0 MiB""".splitlines()
LAYERS = (
    "Layers:\n"
    "Name: a, LayerType: gemm, Inputs: [ { Name: x, Datatype: Float }], Outputs: [ { Name: h, Datatype: Half }], "
    "TacticName: t, Metadata: [ONNX Layer: product]\n"
    "Name: b, LayerType: signal, Inputs: [], Outputs: [], Metadata: \n\n"
    "I/O Tensors:\n Name: x, IOMode: Input, DataType: Float"
)


def test_nodes_and_what_they_read() -> None:
    nodes, registered = read_nodes(LOG)
    assert [node.name for node in nodes] == ["shape", "one", "twice", "product", "turn", "gate", "drop"]
    assert nodes[2].inputs == ("size", "one") and nodes[2].outputs == ("sizes",)
    assert registered == {"shape", "twice", "product", "turn", "gate", "drop"}


def test_every_node_has_a_fate() -> None:
    found = {node.name: fate for node, fate in fates(LOG, read_layers([LAYERS]))}
    assert found == {
        "shape": "folded",  # its size is known in every profile
        "one": "constant",
        "twice": "folded",  # arithmetic on sizes only
        "product": "layer",
        "turn": "folded",  # only moves values, and kernels can read them in any order
        "gate": "fused",  # inside a fused block, though no layer names it
        "drop": "lost",  # it computes on the input, but the report does not mention it
    }


def test_layers_from_the_log() -> None:
    assert read_layers([*LOG, LAYERS]) == [
        Layer("gemm", "Half", frozenset({"product"})),
        Layer("signal", "", frozenset()),
    ]
    assert read_layers(LOG) == []


def test_layers_from_the_inspector() -> None:
    information = {
        "Layers": [
            {"Name": "a", "LayerType": "gemm", "Outputs": [{"Datatype": "Half"}], "Metadata": "[ONNX Layer: product]"},
            {"Name": "b", "LayerType": "Reformat", "Outputs": [{"Format/Datatype": "Row major linear FP16"}]},
            "a name alone",
        ]
    }
    assert inspected_layers(json.dumps(information)) == [
        Layer("gemm", "Half", frozenset({"product"})),
        Layer("Reformat", "FP16", frozenset()),
    ]


def test_report() -> None:
    found = report(LOG, read_layers([LAYERS]))
    assert found["fates"] == {"folded": 3, "constant": 1, "layer": 1, "fused": 1, "lost": 1}
    assert found["nodes"][3] == {"name": "product", "operator": "MatMul", "fate": "layer"}
    assert (found["layers"], found["layers_by_kind"], found["layers_by_precision"]) == (
        2,
        {"gemm": 1, "signal": 1},
        {"Half": 1},
    )
    assert found["activation_bytes"] == [4096, 8192]  # per profile, in their order
    assert (found["weight_bytes"], found["builder_peak_bytes"]) == (16384, 3 * 2**20)
    nothing = report([], [])
    assert nothing["weight_bytes"] is None and nothing["builder_peak_bytes"] is None and nothing["fates"] == {}
