"""The tables and the plot of benchmarks/int8.py, made from given figures."""

from __future__ import annotations

from xml.etree import ElementTree

from benchmarks.int8 import layer_chart, layer_table
from hart_edge.calib.select.sensitivity import LayerFigures

FIGURES = [
    LayerFigures("blocks.1.mlp.down", ("w",), 6e-4),
    LayerFigures("blocks.0.mlp.down", ("w",), 3e-4),
    LayerFigures("blocks.0.mlp.gate+up", ("v", "w"), 1e-5),
    LayerFigures("blocks.1.mlp.gate+up", ("v", "w"), 2e-5),
]


def test_table() -> None:
    assert layer_table(FIGURES).splitlines() == [
        "| layer in INT8 alone | KL, nats |",
        "|---|--:|",
        "| blocks.1.mlp.down | 6.00e-04 |",
        "| blocks.0.mlp.down | 3.00e-04 |",
        "| blocks.0.mlp.gate+up | 1.00e-05 |",
        "| blocks.1.mlp.gate+up | 2.00e-05 |",
    ]


def test_a_curve_for_each_kind_over_the_blocks() -> None:
    root = ElementTree.fromstring(layer_chart(FIGURES))
    lines = root.findall("{*}polyline")
    assert len(lines) == 2
    names = [text.text for text in root.findall("{*}text")]
    assert {"mlp.down", "mlp.gate+up"} <= set(names)
    ends = [[float(pair.split(",")[0]) for pair in line.attrib["points"].split()] for line in lines]
    assert ends[0] == ends[1] and ends[0][0] < ends[0][1]  # blocks from left to right
