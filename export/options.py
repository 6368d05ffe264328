"""What a build is asked for, and what it tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from calib.forms import Int8Form
from calib.graph_files import EXTERNAL_FROM
from calib.observers import Observer
from engines.base import BuildProgress, EngineSettings
from hart_edge.model.sampling import DEFAULT_CFG_SCALE
from runtime.errors import BuildError
from runtime.manifest import Precision, Target

MOST_GUIDANCE = 100.0  # what the manifest allows
ANY_GPU = EngineSettings()


@dataclass(frozen=True)
class BuildOptions:
    """What to build. checkpoint: its folder, or the name of a preset, which is built with random weights.

    int8_budget: how far the transformer's logits may diverge from the reference's before layers are kept out of INT8,
    in nats; keep: patterns of weights that are kept out of it.
    contexts: (N, T, D) and (N, T) arrays for a checkpoint without a text model; engines: what engines are built for;
    portable: leave graphs as they are on a target whose engines are made elsewhere.
    """

    checkpoint: Path | str
    out: Path
    precision: Precision = Precision.INT8
    target: Target = Target.CPU
    cfg_scale: float = DEFAULT_CFG_SCALE
    prompts: Path | None = None
    contexts: Path | None = None
    ranges: Path | None = None
    observer: Observer | None = None
    int8_form: Int8Form = Int8Form.MEASURED
    int8_budget: float = 0.02
    keep: tuple[str, ...] = ()
    engines: EngineSettings = ANY_GPU
    portable: bool = False
    external_from: int = EXTERNAL_FROM
    command: str = "python -m export.build"

    def __post_init__(self) -> None:
        if not 0 <= self.cfg_scale <= MOST_GUIDANCE:  # false for NaN as well
            raise BuildError(f"cfg_scale: expected 0 to {MOST_GUIDANCE:g}, found {self.cfg_scale!r}")
        if not self.int8_budget >= 0:
            raise BuildError(f"int8_budget: expected nats, 0 or more, found {self.int8_budget!r}")


@dataclass(frozen=True)
class StepDone:
    """One finished step of a build. size: bytes that it wrote or read, None where that says nothing."""

    label: str
    seconds: float
    size: int | None


# A label when a step begins, a StepDone when it has ended; in between, how far an engine is.
Progress = Callable[[str | StepDone | BuildProgress], None]
