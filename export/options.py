"""What a build is asked for, and what it tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from calib.graph_files import EXTERNAL_FROM
from calib.observers import Observer
from engines.base import BuildProgress, EngineSettings
from export.gate import LIMITS, Limits
from hart_edge.model.sampling import DEFAULT_CFG_SCALE
from runtime.errors import BuildError
from runtime.manifest import Precision, Target

MOST_GUIDANCE = 100.0  # what the manifest allows
ANY_GPU = EngineSettings()


@dataclass(frozen=True)
class BuildOptions:
    """What to build. checkpoint: its folder, or the name of a preset, which is built with random weights.

    contexts: (N, T, D) and (N, T) arrays for a checkpoint without a text model; engines: what engines are built for;
    portable: leave graphs as they are on a target whose engines are made elsewhere; limits: None for the precision's.
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
    engines: EngineSettings = ANY_GPU
    portable: bool = False
    limits: Limits | None = None
    external_from: int = EXTERNAL_FROM
    command: str = "python -m export.build"

    def __post_init__(self) -> None:
        if not 0 <= self.cfg_scale <= MOST_GUIDANCE:  # false for NaN as well
            raise BuildError(f"cfg_scale: expected 0 to {MOST_GUIDANCE:g}, found {self.cfg_scale!r}")

    @property
    def held_to(self) -> Limits:
        """The limits on how near the graphs come to the reference."""
        return self.limits or LIMITS[self.precision]


@dataclass(frozen=True)
class StepDone:
    """One finished step of a build. size: bytes that it wrote or read, None where that says nothing."""

    label: str
    seconds: float
    size: int | None


# A label when a step begins, a StepDone when it has ended; in between, how far an engine is.
Progress = Callable[[str | StepDone | BuildProgress], None]
