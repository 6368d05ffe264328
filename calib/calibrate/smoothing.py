"""Statistics -> ranges, with the outliers of activations moved into weights where that makes a layer more exact.

A channel of an activation is divided by a factor and the weight's row is multiplied by it (SmoothQuant, arXiv
2211.10438): the product is the same, and INT8 has a smaller range to represent. Every layer has its own alpha, the one
that gives its output the least error on rows of the real loop. Rounding the weights moves the mean
of the output; the bias is corrected for it if that reduces the error on the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from hart_edge.calib.calibrate.channel_ranges import channel_ranges
from hart_edge.calib.calibrate.range_rules import Range, RangeRule, fake_quantize, find_range
from hart_edge.calib.calibrate.ranges import ActivationRange, as_written, factors_of, smoothing_exponents, with_zero
from hart_edge.calib.calibrate.statistics import TensorStatistics
from hart_edge.calib.quantizable_nodes import (
    NodeKind,
    QuantizableNode,
    describe_tensor,
    find_quantizable_nodes,
    image_tensors,
)
from hart_edge.calib.rewrite.int8_numbers import quantize_weight
from hart_edge.calib.scheme import Scheme

ALPHAS = (0.5, 0.65, 0.8)  # larger ones rest on outliers that few rows show, and make the logits worse
GAIN = 0.95  # smoothing costs a multiplication, so its error has to stay below this share of the error without it
BIAS_GAIN = 0.99  # the same share for the correction of the bias
SEARCH_ROWS = 128  # rows of each activation that alphas are tried on

Floats = NDArray[np.float32]
ReadWeight = Callable[[str], Floats]


@dataclass(frozen=True)
class Layer:
    """Linear nodes that have to share their factors, because they share an activation or a weight."""

    nodes: tuple[QuantizableNode, ...]

    @property
    def activations(self) -> list[str]:
        return list(dict.fromkeys(node.activation for node in self.nodes))


def find_layers(model: onnx.ModelProto, scheme: Scheme) -> list[Layer]:
    """The linear layers of a graph whose activations a scheme quantises, in the order of their first nodes."""
    nodes = [
        node
        for node in find_quantizable_nodes(model.graph)
        if node.kind is not NodeKind.EMBEDDING and scheme.quantizes(node.kind, node.weight)
    ]
    images = image_tensors(nodes)
    layers: list[list[QuantizableNode]] = []
    for node in nodes:
        if node.kind is not NodeKind.LINEAR or node.activation in images:
            continue
        ties = {node.activation, node.weight}
        joined = [each for each in layers if any({other.activation, other.weight} & ties for other in each)]
        for each in joined[1:]:
            layers.remove(each)
            joined[0].extend(each)
        if joined:
            joined[0].append(node)
        else:
            layers.append([node])
    return [Layer(tuple(each)) for each in layers]


def choose_ranges(
    model: onnx.ModelProto,
    scheme: Scheme,
    statistics: Mapping[str, TensorStatistics],
    read: ReadWeight,
    rule: RangeRule,
    alphas: Sequence[float] = ALPHAS,
) -> dict[str, ActivationRange]:
    """The range of every calibrated tensor of a graph. read: takes a weight's name and returns its values.

    alphas: none for no smoothing. Raises BuildError for a tensor that no range can be told of.
    """
    if scheme is Scheme.U8S8_CHANNELS:
        return channel_ranges(model, scheme, statistics, read)
    found: dict[str, ActivationRange] = {}
    for layer in find_layers(model, scheme):
        found |= _Search(layer, statistics, read, rule).best(alphas)
    for name in statistics:
        if name not in found:
            shown = describe_tensor(find_quantizable_nodes(model.graph), name)
            found[name] = ActivationRange(*find_range(rule, statistics[name].summary(), shown))
    return {name: found[name] for name in statistics}


@dataclass(frozen=True)
class _Trial:
    """A layer at one alpha. error: the mean squared error of its outputs over their mean square."""

    error: float
    exponents: NDArray[np.int64] | None
    ranges: Mapping[str, Range]
    corrected: Mapping[str, bool]  # per activation, whether correcting the bias helps


class _Search:
    """Tries every alpha on one layer."""

    def __init__(
        self, layer: Layer, statistics: Mapping[str, TensorStatistics], read: ReadWeight, rule: RangeRule
    ) -> None:
        self.layer, self.rule = layer, rule
        self.statistics = {name: statistics[name] for name in layer.activations}
        self.rows = {name: own.rows(SEARCH_ROWS) for name, own in self.statistics.items()}
        axes = {node.weight: node.channel_axis for node in layer.nodes}
        self.weights = {name: read(name) if axis else read(name).T for name, axis in axes.items()}  # (C, outputs)
        spans = [np.maximum(-low, high) for low, high in (own.channels() for own in self.statistics.values())]
        self.activation = np.max(spans, axis=0)
        self.weight = np.max([np.abs(weight).max(1) for weight in self.weights.values()], axis=0)

    def best(self, alphas: Sequence[float]) -> dict[str, ActivationRange]:
        plain = best = self._try(None)
        for alpha in alphas:
            trial = self._try(smoothing_exponents(self.activation, self.weight, alpha))
            if trial.error < min(best.error, GAIN * plain.error):
                best = trial
        exponents = () if best.exponents is None else tuple(int(each) for each in best.exponents)
        return {
            name: ActivationRange(
                *best.ranges[name],
                exponents,
                as_written(own.means()) if best.corrected[name] else (),
            )
            for name, own in self.statistics.items()
        }

    def _try(self, exponents: NDArray[np.int64] | None) -> _Trial:
        factors = np.ones(len(self.weight), np.float32) if exponents is None else factors_of(exponents)
        ranges, rounded = {}, {}
        for name, own in self.statistics.items():
            summary = own.summary() if exponents is None else own.smoothed(factors)
            ranges[name] = find_range(self.rule, summary, describe_tensor(self.layer.nodes, name))
            low, high = with_zero(*ranges[name])
            rounded[name] = fake_quantize((self.rows[name] / factors).astype(np.float64), low, high).astype(np.float32)
        restored_weights = {name: self._restored(weight * factors[:, None]) for name, weight in self.weights.items()}
        errors = []
        plain, mended = dict.fromkeys(self.statistics, 0.0), dict.fromkeys(self.statistics, 0.0)
        for node in self.layer.nodes:
            weight = self.weights[node.weight]
            wanted = self.rows[node.activation] @ weight
            difference = wanted - rounded[node.activation] @ restored_weights[node.weight]
            square = float(np.square(wanted).mean()) or 1.0
            errors.append(float(np.square(difference).mean()) / square)
            means = self.statistics[node.activation].means() / factors
            correction = means @ (weight * factors[:, None] - restored_weights[node.weight])
            plain[node.activation] += errors[-1]
            mended[node.activation] += float(np.square(difference - correction).mean()) / square
        corrected = {name: mended[name] < BIAS_GAIN * plain[name] for name in self.statistics}
        return _Trial(float(np.mean(errors)), exponents, ranges, corrected)

    def _restored(self, weight: Floats) -> Floats:
        """A weight (C, outputs) after quantisation for products with UINT8, the strictest scheme, and back."""
        quantized, scale = quantize_weight(weight, 1, paired=True)
        return quantized.astype(np.float32) * scale
