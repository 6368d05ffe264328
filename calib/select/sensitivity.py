"""How much each layer of the transformer suffers from INT8, and which layers stay out of it.

In: recorded calls, and graphs with INT8 in some layers. Out: how far the logits are from the reference's. The calls are
teacher-forced: every scale gets the true inputs and the true KV cache, so that a layer answers for its own error alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from hart_edge.bundle.manifest import TensorSpec
from hart_edge.calib.calibrate.smoothing import find_layers
from hart_edge.calib.scheme import Scheme
from hart_edge.calib.select.calls import RecordedCall
from hart_edge.calib.select.logits import LogitError, add_errors, compare_logits, mean_kl
from hart_edge.engines.base import Session

OpenWith = Callable[[Collection[str]], Session]  # opens the transformer with only these weights multiplied in INT8
OpenWithout = Callable[[Collection[str]], Session]  # opens it with all weights but these multiplied in INT8


class Head(Protocol):
    """The reference's tokens graph: hidden states and the other inputs, in their order -> logits first."""

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]: ...


@dataclass(frozen=True)
class LayerFigures:
    """What INT8 in one layer alone does. kl: mean over the scales, in nats; weights: as the graph names them."""

    name: str
    weights: tuple[str, ...]
    kl: float


class LogitsJudge:
    """Compares a transformer's hidden states with the reference's by the logits that the head makes of them."""

    def __init__(
        self, transformer: Sequence[RecordedCall], tokens: Sequence[RecordedCall], scales: int, head: Head
    ) -> None:
        """transformer, tokens: the calls of these graphs, a call a scale of prompt after prompt; head: the tokens graph
        of the reference, which is run without guidance.
        """
        self.calls, self.scales, self.head = list(zip(transformer, tokens, strict=True)), scales, head
        self.wanted = [self._logits(call, call.inputs["hidden"]) for call in tokens]

    def errors(self, transformer: Session, *, first_prompt: bool = False) -> list[LogitError]:
        """Scale by scale, over all prompts or the first one."""
        found: list[list[LogitError]] = [[] for _ in range(self.scales)]
        for index, (call, tokens) in enumerate(self.calls[: self.scales if first_prompt else None]):
            hidden = transformer.run(call.inputs, ["hidden"])["hidden"]
            found[index % self.scales].append(compare_logits(self.wanted[index], self._logits(tokens, hidden)))
        return [add_errors(own) for own in found]

    def _logits(self, tokens: RecordedCall, hidden: NDArray[Any]) -> Tensor:
        """(B, n, V)"""
        inputs = {**tokens.inputs, "hidden": hidden, "cfg_scale": np.zeros(1, np.float32)}
        with torch.no_grad():
            return self.head(*(torch.tensor(inputs[tensor.name]) for tensor in self.head.inputs))[0]


def layers_of(model: onnx.ModelProto, scheme: Scheme) -> list[tuple[str, tuple[str, ...]]]:
    """The name and the weights of every layer whose activations a scheme quantises."""
    found = []
    for layer in find_layers(model, scheme):
        weights = tuple(dict.fromkeys(node.weight for node in layer.nodes))
        found.append((layer_name(weights), weights))
    return found


def layer_name(weights: Sequence[str]) -> str:
    """`blocks.3.mlp.gate+up` for transformer.blocks.3.mlp.gate.weight.T and transformer.blocks.3.mlp.up.weight.T."""
    paths = [weight.removeprefix("transformer.").split(".weight")[0].split(".") for weight in weights]
    shared = [parts[0] for parts in itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))]
    rest = ["+".join(".".join(path[len(shared) :]) for path in paths)] if len(paths) > 1 else []
    return ".".join([*shared, *rest])


def measure_layers(
    layers: Sequence[tuple[str, tuple[str, ...]]],
    open_with: OpenWith,
    judge: LogitsJudge,
    progress: Callable[[int, int, str], None],
) -> list[LayerFigures]:
    """What INT8 does in each layer alone, on the first prompt; the most sensitive layer comes first.

    progress: is told the number of each layer as its turn comes, how many there are, and its name.
    """
    found = []
    for number, (name, weights) in enumerate(layers, 1):
        progress(number, len(layers), name)
        figures = judge.errors(open_with(weights), first_prompt=True)
        found.append(LayerFigures(name, weights, mean_kl(figures)))
    return sorted(found, key=lambda layer: -layer.kl)


def fewest_left_out(
    layers: Sequence[LayerFigures], open_without: OpenWithout, accept: Callable[[Session], bool]
) -> list[LayerFigures]:
    """The fewest of the most sensitive layers to leave out of INT8 for a graph that is accepted; all, if none is.

    layers: the most sensitive first. The more of them are left out, the nearer the graph comes to the reference, so
    a binary search finds the number.
    """
    low, high = 0, len(layers)  # fewer than `low` layers are too few, as far as is known; `high` are enough
    while low < high:
        count = (low + high) // 2
        enough = accept(open_without({w for layer in layers[:count] for w in layer.weights}))
        low, high = (low, count) if enough else (count + 1, high)
    return list(layers[:low])
