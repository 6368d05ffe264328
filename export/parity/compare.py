"""Compare every graph with the reference, on the inputs that the real loop gives it.

In: the reference's calls and a session per graph. Out: the largest error per graph; ParityError where one is beyond
tolerance. At every step the exported graph runs on the reference's very inputs, so errors do not add up and a failing
graph is the one that is named. export/stages/check.py makes a stage of it.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.manifest import Precision, TensorSpec
from hart_edge.calib.rewrite.kv_cache import from_cache, in_cache
from hart_edge.calib.scheme import Scheme
from hart_edge.engines.base import Session
from hart_edge.errors import BuildError, ParityError

# Largest difference that is accepted, relative to the largest magnitude of the output (at least 1).
TOLERANCE = {Precision.FP32: 2e-4, Precision.FP16: 2e-2, Precision.INT8: 0.3, Precision.INT4: 1.0}
# Of the tokens graph whose head is a product in FP16, since the GPU has none in float32: guidance, and the temperature
# of the smooth latent, multiply what rounding does to a logit. At hart-emoji's last scale one token of 256 has a latent
# that is off by more than 5e-2 of the largest, the worst by 0.134; the root of the mean square is 1.5 %. The codes that
# are drawn are held to the same as ever.
FP16_HEAD = 0.3
# Of the residual graph: guidance multiplies what rounding does in every denoising step, and a channel that
# is about to be clipped goes either way. On eight prompts torch's own float32 is up to 3.0e-4 from its float64 with
# 1e-6 in the mean, and this graph up to 1.4e-3 from torch's; in FP16 up to 0.17, with 1.1e-3 in the mean.
RESIDUAL = {Precision.FP32: 1e-2, Precision.FP16: 0.3, Precision.INT8: 0.3}
# Of graphs over pixels in float32: ONNX Runtime normalises a group of channels by plain sums in float32, and a group of
# the 0.7B shape at 1024 pixels has five million numbers. There its decoder is up to 3.1e-4 from torch's in float64, and
# torch's own float32 2.1e-5; at 256 pixels both are within 2.2e-5. A level of 255 is 3.9e-3.
FP32_PIXELS = 1e-3
# Share of drawn codes that may differ from the reference's, given the same inputs: ties within rounding.
DIFFERING_CHOICES = 0.01
# How much farther from the latent an encoder's codes may end than the reference's, where some differ. A tie that turns
# at a coarse scale changes all finer ones, for better or worse: at INT8 eight pictures came to 0.93 to 1.12 times.
WORSE_QUANTISATION = 1.25

Arrays = dict[str, NDArray[Any]]
GivenArrays = Mapping[str, NDArray[Any]]
# Sees a call of a graph: its name and scale, the reference's inputs and outputs, and what the exported graph made.
Watcher = Callable[[str, int | None, GivenArrays, GivenArrays, Arrays], None]
# Says of a graph, the reference's inputs and those of the exported graph which layer is the worst; "" where none is.
Explainer = Callable[[str, GivenArrays, GivenArrays], str]


def tolerance_of(graph: str, scheme: Scheme, *, random: bool = False) -> float:
    """The largest error that is accepted of a graph in a scheme. random: of random weights.

    Those amplify every rounding, so beyond float32 their errors say nothing of a scheme; what is not finite is refused.
    """
    if random and scheme is not Scheme.FLOAT32:
        return sys.float_info.max
    if graph == "residual":
        return RESIDUAL[scheme.precision]
    wider = {
        ("decoder", Scheme.FLOAT32): FP32_PIXELS,
        ("encoder", Scheme.FLOAT32): FP32_PIXELS,
        ("tokens", Scheme.FLOAT16_PRODUCTS): FP16_HEAD,
    }
    return wider.get((graph, scheme), TOLERANCE[scheme.precision])


@dataclass(frozen=True)
class GraphError:
    """The largest error of a graph's outputs."""

    error: float = 0.0
    tensor: str = ""


class ParityCheck:
    """Observes the reference's calls, runs each graph on the same inputs, and keeps its largest error."""

    def __init__(
        self,
        sessions: Mapping[str, Session],
        schemes: Mapping[str, Scheme],
        inputs: Mapping[str, Sequence[TensorSpec]] | None = None,
        scales: Mapping[str, Sequence[int | None]] | None = None,
        watch: Watcher | None = None,
        explain: Explainer = lambda *_: "",
        *,
        random: bool = False,
    ) -> None:
        """inputs: per graph, as the sessions take them; without it they take what the reference does.

        scales: per graph those of its calls for one image, in order; a graph that is not named has none.
        random: of random weights.
        """
        self.random = random
        self.sessions, self.schemes, self.scales = sessions, schemes, scales or {}
        taken = (inputs or {}).items()
        self.dtypes = {graph: {spec.name: spec.dtype.value for spec in specs} for graph, specs in taken}
        self.watch, self.explain = watch, explain
        self.worst = {graph: GraphError() for graph in sessions}
        self.calls: Counter[str] = Counter()  # of the plan whose scales these are
        self.compared: set[str] = set()

    def __call__(self, graph: str, inputs: GivenArrays, outputs: GivenArrays) -> None:
        scales = self.scales.get(graph, (None,))
        scale = scales[self.calls[graph] % len(scales)]
        self.calls[graph] += 1
        self.compared.add(graph)
        feeds = self.feeds(graph, inputs)
        found = self.sessions[graph].run(feeds, list(outputs))
        self.worst[graph] = max(compare(graph, outputs, found), self.worst[graph], key=lambda worst: worst.error)
        scheme = self.schemes[graph]
        tolerance = tolerance_of(graph, scheme, random=self.random)
        if not self.worst[graph].error <= tolerance:
            worst = self.worst[graph]
            raise ParityError(
                f"{place(graph, scale)}, tensor {worst.tensor}: error {worst.error:.2e} against the reference, "
                f"tolerance {tolerance:.0e} at {scheme.precision}; {self.explain(graph, inputs, feeds)}nothing was "
                f"written. {remedy(scheme.precision)}"
            )
        if self.watch is not None:
            self.watch(graph, scale, inputs, outputs, found)

    def feeds(self, graph: str, inputs: GivenArrays) -> Arrays:
        """Inputs of the reference as the graph's session takes them."""
        dtypes = self.dtypes.get(graph, {})
        return {name: in_cache(array, dtypes.get(name, array.dtype.name)) for name, array in inputs.items()}


def place(graph: str, scale: int | None) -> str:
    """Where something was found, for a message."""
    return f"graph {graph}" if scale is None else f"graph {graph}, scale {scale}"


def remedy(precision: Precision) -> str:
    """What to do about a graph in a precision that comes less near than it must."""
    if precision is Precision.FP32:
        return "Please report it"
    if precision is Precision.FP16:
        return "Try --precision fp32"
    return (
        "Try --precision fp16, ranges of prompts like yours (--prompts FILE), or --exclude with the name of that layer"
    )


def compare(graph: str, expected: GivenArrays, found: GivenArrays) -> GraphError:
    """The largest error of a call's outputs. NaN, infinity, another shape and another truth are infinite errors.

    Levels of a picture (uint8) may differ by the one that rounding turns; what is beyond counts in units of white.
    """
    for name, reference in expected.items():
        if found[name].shape != reference.shape:
            return GraphError(math.inf, name)
    if "order" in expected:
        return _compare_order(expected, found)
    same = _check_choices(graph, expected, found)
    worst = GraphError(0.0, next(iter(expected), ""))
    for name, reference in expected.items():
        if reference.dtype.kind == "i":
            continue  # _check_choices has judged it
        if not (np.isfinite(found[name]).all() and np.isfinite(reference).all()):
            return GraphError(math.inf, name)
        difference = np.abs(from_cache(found[name], reference) - reference)
        if reference.dtype.kind == "b" and difference.any():
            return GraphError(math.inf, name)
        if reference.dtype.kind == "u":
            difference = (difference - 1).clip(min=0) / 255
            worst = max(worst, GraphError(float(difference.max(initial=0)), name), key=lambda item: item.error)
            continue
        if same is not None and name in ("codes", "latent", "f_hat"):
            if graph == "tokens":
                difference = difference[same]  # where another code was drawn its vector differs as well
            elif name == "f_hat" and not same.all():
                continue  # one other code changes all that follow it; _check_choices has judged the whole
        scale = max(1.0, float(np.abs(reference).max(initial=0)))
        worst = max(worst, GraphError(float(difference.max(initial=0)) / scale, name), key=lambda item: item.error)
    return worst


def _compare_order(expected: GivenArrays, found: GivenArrays) -> GraphError:
    """The largest error of the graph that puts tokens into an order and hands the first of them on.

    Tokens that changed alike may change places, so an order is as far off as it lets the reference's changes rise;
    `sources` must follow from it, and what is handed on is compared token by token.
    """
    order, change = found["order"], expected["change"]
    count, kept = order.shape[1], found["kept_x"].shape[1]
    if not np.array_equal(np.sort(order), np.broadcast_to(np.arange(count), order.shape)):
        return GraphError(math.inf, "order")
    if not np.array_equal(np.argsort(order).clip(max=kept), found["sources"]):
        return GraphError(math.inf, "sources")
    errors = {"order": np.diff(np.take_along_axis(change, order, 1)), "change": np.abs(found["change"] - change)}
    places = np.take_along_axis(np.argsort(expected["order"]), order[:, :kept], 1)  # of the tokens in the reference
    for name in (name for name in expected if name.startswith("kept_")):
        theirs = np.take_along_axis(expected[name], places.clip(max=kept - 1)[..., None], 1)
        errors[name] = np.abs(found[name].astype(np.float64) - theirs)[places < kept]
    scales = {name: max(1.0, float(np.abs(expected[name]).max())) for name in errors if name != "order"}
    worst = [
        GraphError(float(np.where(np.isnan(each), math.inf, each).max(initial=0)) / scales.get(name, 1.0), name)
        for name, each in errors.items()
    ]
    return max(worst, key=lambda each: each.error)


def _check_choices(graph: str, expected: GivenArrays, found: GivenArrays) -> NDArray[np.bool_] | None:
    """Per token whether the same code was chosen, or None for a graph that chooses none.

    Rounding may turn ties. A drawn code stands alone, so few may differ. An encoder's code changes what the finer
    scales see, so there the sum of codes must come as close to the latent as the reference's does.
    """
    if "indices" not in expected:
        return None
    same = np.asarray(expected["indices"] == found["indices"])
    if graph == "tokens" and (~same).sum() > max(1, DIFFERING_CHOICES * same.size):
        raise ParityError(
            f"graph {graph}, tensor indices: {int((~same).sum())} of {same.size} codes differ from the reference's on "
            "the same inputs; nothing was written. Please report it"
        )
    if graph == "encoder" and not same.all():
        rests = [float(np.square(side["f_hat"] - side["latent"]).mean()) for side in (expected, found)]
        if not rests[1] <= rests[0] * WORSE_QUANTISATION:
            raise ParityError(
                f"graph {graph}, tensor f_hat: mean square distance to the latent {rests[1]:.2e}, the reference's is "
                f"{rests[0]:.2e}; nothing was written. Try a higher --precision"
            )
    return same


def require_observed(check: ParityCheck) -> None:
    """Raise BuildError if some graph was never compared."""
    missing = [graph for graph in check.worst if graph not in check.compared]
    if missing:
        raise BuildError(f"graphs {', '.join(missing)} were never compared with the reference; please report it")
