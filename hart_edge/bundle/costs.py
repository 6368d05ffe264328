"""costs.json of a bundle of graphs: what its steps take, counted at the build, so that a device needs no onnx for it.

Written by export/costs.py. Read by `hart-edge plan` (bytes) and `hart-edge bench` (multiply-accumulates); nothing that
draws reads it, and bundles without it are whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NoReturn

from hart_edge.bundle.fields import Length, integer, plain, read, show
from hart_edge.bundle.manifest import FurtherSpeed
from hart_edge.bundle.plan import Bytes, ComponentName, Name, Scale
from hart_edge.bundle.settings import Speed
from hart_edge.bundle.verify import Bundle
from hart_edge.errors import BundleError

COSTS_FILE = "costs.json"
MOST_BYTES = 16 * 2**20  # of the file
REMEDY = "rebuild the bundle with python -m export.build"

Count = Annotated[int, integer(0, 2**62)]


@dataclass(frozen=True)
class GraphCost:
    """weights: bytes of the graph's weights as they are held while it runs; nodes: how many run."""

    graph: Name
    weights: Bytes
    nodes: Annotated[int, integer(0, 2**30)]


@dataclass(frozen=True)
class StepCost:
    """A step of the plan for one image. activations: the most bytes that lie between its nodes at a time, beside the
    plan's buffers; macs: multiply-accumulates, both branches of the guidance included."""

    graph: Name
    scale: Scale | None
    activations: Bytes
    macs: Count


Steps = Annotated[tuple[StepCost, ...], Length(1, 10_000)]


@dataclass(frozen=True)
class Costs:
    """steps: one for each of the plan's, in its order; speeds: the same of the other speeds' plans."""

    graphs: Annotated[tuple[GraphCost, ...], Length(1, len(ComponentName))]
    steps: Steps
    speeds: dict[FurtherSpeed, Steps] | None = None  # None is for Python only, as in Buffer

    @classmethod
    def keys_for(cls, given: Mapping[str, object]) -> frozenset[str]:
        return frozenset(cls.__dataclass_fields__) - (frozenset() if given.get("speeds") else {"speeds"})

    def at(self, speed: Speed) -> tuple[StepCost, ...]:
        """The steps of a speed that the bundle has."""
        return {Speed.EXACT: self.steps, **(self.speeds or {})}[speed]


def to_json(costs: Costs) -> bytes:
    return json.dumps(plain(costs), indent=1).encode() + b"\n"


def read_costs(bundle: Bundle) -> Costs | None:
    """The costs that a bundle tells; None where it has none. Raises BundleError for those of another plan."""
    if COSTS_FILE not in bundle.manifest.files:
        return None
    file = bundle.path(COSTS_FILE)
    if bundle.manifest.files[COSTS_FILE].bytes > MOST_BYTES:
        _refuse(f"at most {MOST_BYTES} bytes", str(bundle.manifest.files[COSTS_FILE].bytes))
    try:
        value = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        _refuse("JSON", str(error)[:200])
    try:
        costs = read(Costs, value, "costs")
    except BundleError as error:  # told as if it stood in the manifest
        raise BundleError(str(error).replace("manifest.json: ", f"{COSTS_FILE}: ", 1)) from error
    plans = bundle.manifest.plans
    if plans.keys() != {Speed.EXACT, *(costs.speeds or {})}:
        _refuse(f"the speeds {', '.join(plans)}", ", ".join([Speed.EXACT, *(costs.speeds or {})]))
    for speed, plan in plans.items():
        steps, told = [(step.graph, step.scale) for step in plan.steps], costs.at(speed)
        if [(each.graph, each.scale) for each in told] != steps:
            _refuse(f"the {len(steps)} steps of the plan {speed}, in its order", f"{len(told)} steps, of another one")
    used = {step.graph for plan in plans.values() for step in plan.steps}
    if not used <= {each.graph for each in costs.graphs}:
        _refuse("every graph of the plans", show(", ".join(each.graph for each in costs.graphs)))
    return costs


def _refuse(expected: str, found: str) -> NoReturn:
    raise BundleError(f"{COSTS_FILE}: expected {expected}, found {found}; {REMEDY}")
