"""How near a 4-bit text model comes: the cosine of its contexts, and what they do to the transformer's logits.

In: the reference's calls, and sessions of the written graphs. Out: ContextFigures. Rounding to 16 levels moves single
numbers by far, so the largest error says little here: what counts is the direction of a token's context, and the codes
that the transformer then finds likely.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hart_edge.bundle.plan import Plan
from hart_edge.calib.select.logits import LogitError, add_errors, compare_logits
from hart_edge.engines.base import Session
from hart_edge.export.graph_module import GraphModule
from hart_edge.export.parity.recording import Call, Recording
from hart_edge.runtime.loop import Array, Buffers, Fill, execute

MIN_COSINE = 0.98  # mean over the tokens of all prompts
MAX_KL, MIN_TOP_1 = 0.02, 0.95  # of the logits downstream, as of a transformer at INT8, mean over scales
OWN = frozenset({"text_model", "context", "transformer"})  # run by the written graphs


@dataclass(frozen=True)
class ContextFigures:
    """cosine: of a token's context with the reference's, the mean and the least; kl, top_1: of the conditional logits
    that follow, means over the scales."""

    cosine: float
    least_cosine: float
    kl: float
    top_1: float

    def in_words(self) -> str:
        return (
            f"cosine of contexts {self.cosine:.4f}, of the worst token {self.least_cosine:.4f}; logits downstream: KL "
            f"{self.kl:.1e} nats, top-1 {100 * self.top_1:.1f} %"
        )

    @property
    def within(self) -> bool:
        return self.cosine >= MIN_COSINE and self.kl <= MAX_KL and self.top_1 >= MIN_TOP_1


def measure_contexts(
    plan: Plan, recording: Recording, sessions: Mapping[str, Session], tokens: GraphModule, fills: Sequence[Fill]
) -> ContextFigures:
    """tokens: the reference's head; fills: of every prompt of the recording."""
    cosines: list[float] = []
    scales: dict[int, list[LogitError]] = {}
    for prompt, fill in zip(recording.prompts, fills, strict=True):
        runner = _Downstream(prompt, sessions, tokens)
        for _ in execute(plan, runner, Buffers(plan, 1, fill, frozenset())):
            pass
        cosines += runner.cosines
        for scale, error in enumerate(runner.errors):
            scales.setdefault(scale, []).append(error)
    errors = [add_errors(own) for own in scales.values()]
    kl, top_1 = (float(np.mean([getattr(e, name) / e.tokens for e in errors])) for name in ("kl", "same"))
    return ContextFigures(float(np.mean(cosines)), min(cosines), max(0.0, kl), top_1)


class _Downstream:
    """A Runner of the loop on one prompt: the written graphs up to the hidden states, with a KV cache of their own; all
    else, the codes among it, is as the reference had it, so that every scale is asked the same question."""

    def __init__(self, calls: Sequence[Call], sessions: Mapping[str, Session], tokens: GraphModule) -> None:
        self._calls = {name: [each for each in calls if each.graph == name] for name in {each.graph for each in calls}}
        self._sessions, self._tokens = sessions, tokens
        self.cosines: list[float] = []
        self.errors: list[LogitError] = []

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        recorded = self._calls[graph].pop(0)
        made = recorded.outputs
        if graph in OWN:
            found = self._sessions[graph].run(dict(inputs), list(outputs))
            if graph == "text_model":
                self._compare(made["context"], found["context"])
            made = found
        elif graph == "tokens":
            expected = self._logits(recorded.inputs)
            self.errors.append(compare_logits(expected, self._logits({**recorded.inputs, "hidden": inputs["hidden"]})))
        for name, array in outputs.items():
            array[...] = made[name]

    def _compare(self, expected: NDArray[Any], found: NDArray[Any]) -> None:
        one, other = (torch.from_numpy(each[0].astype(np.float64)) for each in (expected, found))
        self.cosines += torch.cosine_similarity(one, other, dim=-1).tolist()

    def _logits(self, inputs: Mapping[str, NDArray[Any]]) -> torch.Tensor:
        """Conditional logits: (B, n, V)"""
        given = {**inputs, "cfg_scale": np.zeros_like(inputs["cfg_scale"])}
        with torch.no_grad():
            results = self._tokens(*(torch.from_numpy(np.array(given[each.name])) for each in self._tokens.inputs))
        logits: torch.Tensor = results[0]
        return logits
