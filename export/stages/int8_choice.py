"""The choice of INT8 schemes: the one that is fast on this machine, and the layers that are not multiplied in INT8.

In: traced graphs, ranges, and the reference's calls. Out: a Decision per component.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from hart_edge.bundle.manifest import ComponentName, TensorSpec
from hart_edge.bundle.quality import Limits, percent, psnr
from hart_edge.calib.calibrate.ranges import CalibratedRanges
from hart_edge.calib.graph_files import graph_file, read_graph, weight_bytes
from hart_edge.calib.quantizable_nodes import NodeKind
from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.rewrite.kv_cache import in_cache
from hart_edge.calib.scheme import INSTEAD, NEVER_FLOAT32, CacheForm, Int8Scheme, Scheme, candidates, specs_in
from hart_edge.calib.select.fastest import (
    NOISE,
    WORTH,
    Candidate,
    Choice,
    NoCandidateError,
    choose_scheme,
    timed,
)
from hart_edge.calib.select.logits import LogitError
from hart_edge.calib.select.sensitivity import LayerFigures, LogitsJudge, fewest_left_out, layers_of, measure_layers
from hart_edge.engines.base import BuildProgress, EngineLibrary, Session
from hart_edge.errors import BuildError
from hart_edge.export.graph_module import GraphModule
from hart_edge.export.parity.compare import compare, tolerance_of
from hart_edge.export.parity.limits import beyond
from hart_edge.export.parity.recording import FIRST, Recording


@dataclass(frozen=True)
class Decision:
    """The scheme of a component.

    excluded: weights that stay out of INT8 altogether; weight_only: weights that are held in INT8 and multiplied in
    float32 where the scheme allows it, else excluded as well.
    """

    scheme: Scheme
    reason: str = ""
    excluded: frozenset[str] = frozenset()
    weight_only: frozenset[str] = frozenset()


def logits_judge(recording: Recording, tokens: GraphModule) -> LogitsJudge:
    """The judge of transformers by the reference's logits. tokens: the reference's graph."""
    scales = len(recording.calls("transformer", FIRST))
    return LogitsJudge(recording.calls("transformer"), recording.calls("tokens"), scales, tokens)


def within(errors: Sequence[LogitError], limits: Limits) -> bool:
    """Whether every scale is within the limits on logits."""
    return not any(beyond(scale.same / scale.tokens, scale.kl / scale.tokens, scale.tokens, limits) for scale in errors)


def describe(errors: Sequence[LogitError]) -> str:
    """The worst scale of each figure."""
    most = max(scale.kl / scale.tokens for scale in errors)
    return (
        f"KL {most:.1e} nats, top-1 {percent(min(scale.same / scale.tokens for scale in errors))} at the worst scales"
    )


@dataclass(frozen=True)
class Int8Choice:
    """Chooses by opening candidate graphs beside the traced ones in `folder`.

    graphs: the reference's, of which the tokens graph is run; say: takes what a user should know; min_psnr: dB, that
    the worst picture of an INT8 decoder has at least; random: whether its weights are random; cache: how the KV cache
    is held, as long as the logits allow it; wide: tensors that FP16 may not hold, per graph; progress: is told of each
    layer that is looked at. The functions are those that do the work.
    """

    folder: Path
    graphs: Mapping[str, GraphModule]
    ranges: CalibratedRanges
    library: EngineLibrary
    say: Callable[[str], None]
    min_psnr: float
    random: bool = False
    cache: CacheForm = CacheForm.FLOAT32
    wide: Mapping[str, frozenset[str]] = field(default_factory=dict)
    progress: Callable[[BuildProgress], None] = lambda _: None
    rewrite: Callable[..., onnx.ModelProto] = apply_scheme
    choose: Callable[..., Choice] = choose_scheme
    tolerance: Callable[..., float] = tolerance_of

    def decide(
        self, decisions: Mapping[str, Decision], wanted: Int8Scheme, recording: Recording, limits: Limits | None
    ) -> tuple[dict[str, Decision], CacheForm]:
        """The decisions with every component's fastest scheme, and the transformer's layers within the limits; and how
        the KV cache is held.

        limits: on its logits; None where they mean nothing.
        """
        possible = {
            name: candidates(each.scheme, wanted, float32=name != ComponentName.TEXT_MODEL or self._is_small(name))
            for name, each in decisions.items()
        }
        found = {name: replace(each, scheme=possible[name][0]) for name, each in decisions.items()}
        for name, schemes in possible.items():
            if len(schemes) > 1:
                found[name] = self._fastest(name, found[name], schemes, recording)
                self.say(f"{name}: {found[name].scheme}: {found[name].reason}")
            elif schemes[0] in INSTEAD:
                found[name] = self._good_enough(name, found[name], recording)
        if limits is None:
            return found, self.cache
        found["transformer"], cache = self._within_limits(found["transformer"], recording, limits)
        return found, cache

    def _is_small(self, name: str) -> bool:
        """Whether a component's weights may be held in float32."""
        return weight_bytes(read_graph(self.folder / f"{name}.onnx")) < NEVER_FLOAT32

    def _fastest(self, name: str, decision: Decision, schemes: Sequence[Scheme], recording: Recording) -> Decision:
        """The fastest scheme whose error on recorded calls is accepted."""
        calls = recording.calls(name, FIRST)
        refused: list[str] = []

        def candidate(scheme: Scheme) -> Candidate | None:
            session, seconds, error = self._open(name, scheme, decision.excluded), 0.0, 0.0
            for call in calls:
                spent, found = timed(session, call)
                seconds += spent
                error = max(error, compare(name, call.outputs, found).error)
            shortfall = self._shortfall(name, session, recording) if scheme is Scheme.U8S8_CHANNELS else ""
            if error <= self.tolerance(name, scheme, random=self.random) and not shortfall:
                return Candidate(scheme, session, error, seconds)
            refused.append(f"{scheme}: {shortfall or f'error {error:.1e}'}")
            return None

        # INT8 convolutions cost a picture some dB, so they have to be worth it.
        equal = WORTH if Scheme.U8S8_CHANNELS in schemes else NOISE
        try:
            # Backwards: the scheme that takes the most memory while it opens, INT8 weights in float32 arithmetic, is
            # opened while no other is.
            choice = self.choose(filter(None, map(candidate, reversed(schemes))), calls, equal=equal)
        except NoCandidateError:
            raise BuildError(
                f"graph {name}: no INT8 scheme comes near the reference ({'; '.join(refused)}); calibrate on "
                "prompts like those that it will see (--prompts), or build at fp16"
            ) from None
        reasons = [choice.reason, *refused] if choice.reason else refused
        return replace(decision, scheme=choice.scheme, reason="; ".join(reasons))

    def _good_enough(self, name: str, decision: Decision, recording: Recording) -> Decision:
        """A decoder's INT8 convolutions, or the scheme in place of them where pictures would suffer."""
        shortfall = self._shortfall(name, self._open(name, decision.scheme, decision.excluded), recording)
        if not shortfall:
            return decision
        instead, reason = INSTEAD[decision.scheme], f"{decision.scheme}: {shortfall}"
        self.say(f"{name}: {instead}: {reason}")
        return replace(decision, scheme=instead, reason=reason)

    def _shortfall(self, name: str, session: Session, recording: Recording) -> str:
        """How far the worst recorded picture is below min_psnr, in words; "" where none is."""
        errors = []
        for call in recording.calls(name):
            found = session.run(call.inputs, ["image"])["image"].astype(np.float64)
            errors.append(float(np.square(found - call.outputs["image"]).mean()))
        worst = psnr(max(errors))
        if worst is None or worst >= self.min_psnr:
            return ""
        return f"worst picture {worst:.1f} dB, limit {self.min_psnr:g} dB"

    def _within_limits(self, decision: Decision, recording: Recording, limits: Limits) -> tuple[Decision, CacheForm]:
        """Take keys and then the most sensitive layers out of INT8 products until the logits are near enough at every
        scale."""
        products = decision.scheme.quantizes(NodeKind.LINEAR)
        if not products and self.cache is not CacheForm.INT8_KEYS:
            return decision, self.cache
        judge = logits_judge(recording, self.graphs["tokens"])
        errors: list[LogitError] = []
        every: frozenset[str] = frozenset()

        def open_without(weights: Collection[str]) -> Session:
            return self._open("transformer", decision.scheme, decision.excluded, weights)

        def open_with(weights: Collection[str]) -> Session:
            return self._open("transformer", decision.scheme, every.difference(weights))

        def accept(session: Session) -> bool:
            errors[:] = judge.errors(session)
            return within(errors, limits)

        def tell(number: int, count: int, layer: str) -> None:
            seconds = time.monotonic() - begin
            self.progress(BuildProgress("transformer", f"INT8 in {layer} alone,", number, count, seconds))

        near = accept(open_without(()))
        if not near and self.cache is CacheForm.INT8_KEYS:
            self.say(f"transformer: keys in FP16; in INT8: {describe(errors)}")
            return replace(self, cache=CacheForm.FLOAT16)._within_limits(decision, recording, limits)
        if not products:
            return decision, self.cache
        sensitive: list[LayerFigures] = []
        if not near:
            layers = layers_of(read_graph(self.folder / "transformer.onnx"), decision.scheme)
            layers = [layer for layer in layers if not decision.excluded.issuperset(layer[1])]
            every = decision.excluded.union(*(weights for _, weights in layers))
            self.say(f"transformer: {describe(errors)}; looking at each of {len(layers)} layers")
            begin = time.monotonic()
            sensitive = fewest_left_out(measure_layers(layers, open_with, judge, tell), open_without, accept)
            accept(open_without({weight for layer in sensitive for weight in layer.weights}))
        names = f"; not multiplied in INT8: {', '.join(layer.name for layer in sensitive)}" if sensitive else ""
        reason = f"{describe(errors)}{names}"
        self.say(f"transformer: {reason}")
        weights = frozenset(weight for layer in sensitive for weight in layer.weights)
        found = replace(decision, reason="; ".join(filter(None, (decision.reason, reason))), weight_only=weights)
        return found, self.cache

    def _open(self, name: str, scheme: Scheme, excluded: Collection[str], weight_only: Collection[str] = ()) -> Session:
        """A session of a component in a scheme. Weights that stay as they are lie in the traced graph's file."""
        ranges, wide = self.ranges.graphs.get(name, {}), self.wide.get(name, frozenset())
        traced = read_graph(self.folder / f"{name}.onnx")
        model = self.rewrite(traced, scheme, ranges, self.folder, wide, excluded, weight_only, cache=self.cache)
        with graph_file(model, self.folder / f"{name}.candidate.onnx") as path:
            del model  # its weights are in the file
            session = self.library.open(path)
        if not scheme.fp16_activations and self.cache is CacheForm.FLOAT32:
            return session
        return CastingSession(session, specs_in(self.graphs[name].inputs, scheme, self.cache))


@dataclass(frozen=True)
class CastingSession:
    """A session that takes the reference's inputs, and casts them to the types that its graph has them in."""

    session: Session
    inputs: Sequence[TensorSpec]

    def run(self, inputs: Mapping[str, NDArray[Any]], outputs: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        dtypes = {spec.name: spec.dtype.value for spec in self.inputs}
        cast = {name: in_cache(value, dtypes[name]) for name, value in inputs.items()}
        return self.session.run(cast, outputs)
