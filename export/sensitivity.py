"""How much each layer of the transformer suffers from INT8, and which ones stay out of it.

In: recorded calls, and graphs with INT8 in some layers. Out: the divergence of the logits from the reference's,
teacher-forced: at every scale the true inputs and the true cache, so that a layer is judged by what it does itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from calib.forms import Form
from calib.smoothing import find_layers
from engines.base import Session
from export.recording import Recording

# A session of the transformer with INT8 in all layers but those that read these weights.
OpenWithout = Callable[[Collection[str]], Session]


@dataclass(frozen=True)
class LayerFigures:
    """A layer with INT8 in it alone. kl: mean over the scales, in nats; weights: as the graph names them."""

    name: str
    weights: tuple[str, ...]
    kl: float


class LogitsJudge:
    """Holds hidden states of recorded calls against the reference's, by the logits that the head makes of them."""

    def __init__(self, recording: Recording, head: Session) -> None:
        """head: the tokens graph in float32, which is run without guidance."""
        self.recording, self.head = recording, head

    def divergence(self, transformer: Session) -> NDArray[np.float64]:
        """Mean KL(reference || found) per call, in nats: scale by scale, prompt after prompt."""
        found = []
        for call, logits in zip(self.recording.calls("transformer"), self._reference(), strict=True):
            hidden = transformer.run(call.inputs, ["hidden"])["hidden"]
            found.append(kl_divergence(logits[0], self._logits(logits[1], hidden)))
        return np.array(found)

    def _reference(self) -> Iterator[tuple[NDArray[np.float32], dict[str, NDArray]]]:
        for call in self.recording.calls("tokens"):
            yield self._logits(call.inputs, call.inputs["hidden"]), call.inputs

    def _logits(self, inputs: dict[str, NDArray], hidden: NDArray) -> NDArray[np.float32]:
        unguided = {**inputs, "hidden": hidden, "guidance_ratio": np.zeros(1, np.float32)}
        return self.head.run(unguided, ["logits"])["logits"]


def kl_divergence(reference: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    """Mean over tokens of KL(softmax(reference) || softmax(found)) along the last axis, in nats."""
    wanted, other = (_log_softmax(logits.astype(np.float64)) for logits in (reference, found))
    return float((np.exp(wanted) * (wanted - other)).sum(-1).mean())


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def layers_of(model: onnx.ModelProto, form: Form) -> list[tuple[str, tuple[str, ...]]]:
    """Name and weights of every layer that a form quantises."""
    found = []
    for layer in find_layers(model, form):
        weights = tuple(dict.fromkeys(site.weight for site in layer.sites))
        found.append((layer_name(weights), weights))
    return found


def layer_name(weights: Sequence[str]) -> str:
    """`blocks.3.mlp.gate+up` of transformer.blocks.3.mlp.gate.weight.T and its like."""
    paths = [weight.removeprefix("transformer.").split(".weight")[0].split(".") for weight in weights]
    shared = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))]
    rest = ["+".join(".".join(path[len(shared) :]) for path in paths)] if len(paths) > 1 else []
    return ".".join([*shared, *rest])


def measure_layers(
    layers: Sequence[tuple[str, tuple[str, ...]]],
    open_without: OpenWithout,
    judge: LogitsJudge,
    progress: Callable[[str], None],
) -> list[LayerFigures]:
    """Every layer with INT8 in it alone, the most sensitive first."""
    every = {weight for _, weights in layers for weight in weights}
    found = []
    for number, (name, weights) in enumerate(layers, 1):
        progress(f"layer {number} of {len(layers)}: {name}")
        session = open_without(every.difference(weights))
        found.append(LayerFigures(name, weights, float(judge.divergence(session).mean())))
    return sorted(found, key=lambda layer: -layer.kl)


def choose_kept(
    layers: Sequence[LayerFigures], open_without: OpenWithout, judge: LogitsJudge, budget: float
) -> tuple[list[LayerFigures], float]:
    """The layers that stay out of INT8, and the divergence that is left. layers: the most sensitive first.

    Divergences of layers nearly add up, so their sum says where to begin; what is measured decides where to end.
    """
    sums = np.cumsum([layer.kl for layer in reversed(layers)])[::-1]  # of a layer and all less sensitive ones
    count = int(np.searchsorted(-sums, -budget))
    while True:
        kept = list(layers[:count])
        left = float(judge.divergence(open_without({w for layer in kept for w in layer.weights})).mean())
        if left <= budget or count == len(layers):
            return kept, left
        count += 1
