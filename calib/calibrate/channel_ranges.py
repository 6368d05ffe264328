"""Statistics -> ranges of convolutions whose every channel has its own: what a decoder's pictures need.

What a convolution reads is smoothed (SmoothQuant) by one alpha; what it makes gets a range per channel. Both are the
extremes of all that calibration saw: a clipped value is a spot in the picture, so rules that clip, and extremes
averaged over prompts, come to 35 dB where these come to 50. docs/int8.md has the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

from hart_edge.calib.calibrate.ranges import ActivationRange, as_written, factors_of, smoothing_exponents
from hart_edge.calib.calibrate.statistics import TensorStatistics
from hart_edge.calib.quantizable_nodes import QuantizableNode, find_quantizable_nodes
from hart_edge.calib.scheme import Scheme

ALPHA = 0.75

Floats = NDArray[np.float32]


def channel_ranges(
    model: onnx.ModelProto,
    scheme: Scheme,
    statistics: Mapping[str, TensorStatistics],
    read: Callable[[str], Floats],
) -> dict[str, ActivationRange]:
    """The range of every tensor that a quantised convolution reads or makes. read: a weight's values by its name."""
    nodes = [node for node in find_quantizable_nodes(model.graph) if scheme.quantizes(node.kind, node.weight)]
    readers: dict[str, list[QuantizableNode]] = {}
    for node in nodes:
        readers.setdefault(node.activation, []).append(node)
    made = {node.proto.output[0] for node in nodes}
    found = {}
    for name, own in statistics.items():
        low, high = own.channels()
        exponents = np.zeros(len(low), np.int64)
        if name in readers:
            weight = np.max([np.abs(read(node.weight)).max((0, 2, 3)) for node in readers[name]], axis=0)
            exponents = smoothing_exponents(np.maximum(-low, high), weight, ALPHA)
        factors = factors_of(exponents)
        found[name] = ActivationRange(
            float((low / factors).min()),
            float((high / factors).max()),
            tuple(int(each) for each in exponents) if exponents.any() else (),
            lows=as_written(low) if name in made else (),
            highs=as_written(high) if name in made else (),
        )
    return found
