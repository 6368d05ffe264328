"""How much each layer of the transformer suffers from INT8, and which ones stay out of it.

In: recorded calls, and graphs with INT8 in some layers. Out: how far the logits are from the reference's, teacher-
forced: at every scale the true inputs and the true cache, so that a layer is judged by what it does itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from hart_edge.calib.calibrate.smoothing import find_layers
from hart_edge.calib.scheme import Scheme
from hart_edge.engines.base import Session
from hart_edge.export.graphs import GraphModule
from hart_edge.export.parity.quality import LogitError, compare_logits
from hart_edge.export.parity.recording import ALL, FIRST, Call, Recording

# A session of the transformer in which these weights are multiplied in INT8, or all but these.
OpenWith = Callable[[Collection[str]], Session]
OpenWithout = Callable[[Collection[str]], Session]


@dataclass(frozen=True)
class LayerFigures:
    """A layer with INT8 in it alone. kl: mean over the scales, in nats; weights: as the graph names them."""

    name: str
    weights: tuple[str, ...]
    kl: float


class LogitsJudge:
    """Holds hidden states of recorded calls against the reference's, by the logits that the head makes of them."""

    def __init__(self, recording: Recording, head: GraphModule) -> None:
        """head: the reference's tokens graph, which is run without guidance."""
        self.recording, self.head = recording, head
        self.scales = len(recording.calls("transformer", FIRST))
        self.wanted = [self._logits(call, call.inputs["hidden"]) for call in recording.calls("tokens")]

    def errors(self, transformer: Session, *, first_prompt: bool = False) -> list[LogitError]:
        """Scale by scale, over all prompts or the first one."""
        found: list[list[LogitError]] = [[] for _ in range(self.scales)]
        transformers = self.recording.calls("transformer", FIRST if first_prompt else ALL)
        heads = self.recording.calls("tokens")[: len(transformers)]
        for index, (call, head) in enumerate(zip(transformers, heads, strict=True)):
            hidden = transformer.run(call.inputs, ["hidden"])["hidden"]
            found[index % self.scales].append(compare_logits(self.wanted[index], self._logits(head, hidden)))
        return [add_errors(own) for own in found]

    def _logits(self, head: Call, hidden: NDArray) -> Tensor:
        """(B, n, V)"""
        inputs = {**head.inputs, "hidden": hidden, "cfg_scale": np.zeros(1, np.float32)}
        with torch.no_grad():
            return self.head(*(torch.tensor(inputs[tensor.name]) for tensor in self.head.inputs))[0]


def add_errors(errors: Sequence[LogitError]) -> LogitError:
    """Of the tokens of several calls together."""
    return LogitError(
        tokens=sum(each.tokens for each in errors),
        same=sum(each.same for each in errors),
        cosine=sum(each.cosine for each in errors),
        largest=max(each.largest for each in errors),
        kl=sum(each.kl for each in errors),
    )


def mean_kl(errors: Sequence[LogitError]) -> float:
    """In nats, each scale with the same say."""
    return float(np.mean([scale.kl / scale.tokens for scale in errors]))


def layers_of(model: onnx.ModelProto, scheme: Scheme) -> list[tuple[str, tuple[str, ...]]]:
    """Name and weights of every layer that a scheme quantises."""
    found = []
    for layer in find_layers(model, scheme):
        weights = tuple(dict.fromkeys(node.weight for node in layer.nodes))
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
    open_with: OpenWith,
    judge: LogitsJudge,
    progress: Callable[[str], None],
) -> list[LayerFigures]:
    """Every layer with INT8 in it alone, on the first prompt, the most sensitive first."""
    found = []
    for number, (name, weights) in enumerate(layers, 1):
        progress(f"layer {number} of {len(layers)}: {name}")
        figures = judge.errors(open_with(weights), first_prompt=True)
        found.append(LayerFigures(name, weights, mean_kl(figures)))
    return sorted(found, key=lambda layer: -layer.kl)


def fewest_left_out(
    layers: Sequence[LayerFigures], open_without: OpenWithout, accept: Callable[[Session], bool]
) -> list[LayerFigures]:
    """The fewest of the most sensitive layers without which the graph is accepted; all of them, if it never is.

    layers: the most sensitive first. The more of them are left out the nearer the graph comes, so halving finds it.
    """
    low, high = 0, len(layers)  # `low` - 1 layers are too few, as far as is known; `high` are enough
    while low < high:
        count = (low + high) // 2
        enough = accept(open_without({w for layer in layers[:count] for w in layer.weights}))
        low, high = (low, count) if enough else (count + 1, high)
    return list(layers[:low])
