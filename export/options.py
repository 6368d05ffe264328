"""What a build is asked for, and what it tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from hart_edge.bundle.manifest import Precision, Target
from hart_edge.bundle.plan import WHOLE
from hart_edge.bundle.quality import LIMITS, Limits
from hart_edge.bundle.settings import DEFAULTS, Settings, refusal
from hart_edge.calib.calibrate.range_rules import RangeRule
from hart_edge.calib.graph_files import EXTERNAL_FROM
from hart_edge.calib.rewrite.kv_cache import SMALL_CACHE_FROM
from hart_edge.calib.scheme import Int8Scheme
from hart_edge.engines.base import BuildProgress, EngineSettings
from hart_edge.errors import BuildError

ANY_GPU = EngineSettings()
# Bytes of a branch's attention scores at the last scale from which a CPU gets ONNX Runtime's attention, which keeps
# none, and from which other graphs are run here some heads at a time. 0.7B has 24 MB at 256 pixels, where what it saves
# at the last scale it loses at the first; 250 MB at 512, and 3.8 GB at 1024 (benchmarks.attention).
FUSED_FROM = 2**27


@dataclass(frozen=True)
class BuildOptions:
    """What to build. checkpoint: its folder, or the name of a preset, which is built with random weights.

    with_text_model: build a preset with a text model of the published shape;
    text_precision: of the text model, None for that of all else;
    instruction: the text that the text model reads in front of every prompt, "" for none, None for the checkpoint's;
    settings: how the bundle draws codes unless a caller asks otherwise, without what stays the checkpoint's own.
    int8_budget: how far the transformer's logits may diverge from the reference's at any scale before layers are taken
    out of INT8, in nats, None for what the limits allow; excluded: patterns of weights that stay out of INT8.
    contexts: (N, T, D) and (N, T) arrays for a checkpoint without a text model; engines: what engines are built for;
    portable: leave graphs as they are on a target whose engines are made elsewhere; limits: None for the precision's.
    external_from, fused_from, small_cache_from: bytes from which weights lie beside their graph, a CPU gets attention
    as one operator (graphs of other targets are run here some heads at a time), and an INT8 bundle holds its KV cache
    in smaller types than float32.
    """

    checkpoint: Path | str
    out: Path
    precision: Precision = Precision.INT8
    target: Target = Target.CPU
    instruction: str | None = None
    with_text_model: bool = False
    text_precision: Precision | None = None
    settings: Settings = field(default_factory=Settings)
    prompts: Path | None = None
    contexts: Path | None = None
    ranges: Path | None = None
    range_rule: RangeRule | None = None
    int8_scheme: Int8Scheme = Int8Scheme.MEASURED
    int8_budget: float | None = None
    excluded: tuple[str, ...] = ()
    engines: EngineSettings = ANY_GPU
    portable: bool = False
    limits: Limits | None = None
    external_from: int = EXTERNAL_FROM
    fused_from: int = FUSED_FROM
    small_cache_from: int = SMALL_CACHE_FROM
    command: str = "python -m export.build"

    def __post_init__(self) -> None:
        for name, value in self.settings.items():
            if name not in DEFAULTS:
                raise BuildError(f"settings: expected only {', '.join(DEFAULTS)}, found {name}")
            wrong = None if value is None else refusal(name, value)
            if wrong is not None:
                raise BuildError(f"{name}: {wrong}")
        if self.contexts is not None and not self.contexts.exists():
            expected = "an npz with context (N, T, D) and context_mask (N, T)"
            raise BuildError(f"--contexts {self.contexts}: no such file; expected {expected}")
        if self.text_precision is Precision.INT4 and self.target is not Target.CPU:
            raise BuildError(
                f"--text-precision int4: expected target cpu, found {self.target}: 4-bit weights are one operator of "
                "ONNX Runtime on CPUs; take int8 or fp16"
            )
        if self.precision not in WHOLE:
            raise BuildError(f"--precision: expected one of {', '.join(WHOLE)}, found {self.precision}")
        if self.int8_budget is not None and not self.int8_budget >= 0:
            raise BuildError(f"int8_budget: expected nats, 0 or more, found {self.int8_budget!r}")

    @property
    def effective_limits(self) -> Limits:
        """How near the graphs have to come to the reference: the limits that were given, or the precision's."""
        return self.limits or LIMITS[self.precision]

    @property
    def layer_limits(self) -> Limits:
        """The limits on logits for which layers are taken out of INT8: those above, with the budget for max_kl."""
        limits = self.effective_limits
        return limits if self.int8_budget is None else replace(limits, max_kl=self.int8_budget)


@dataclass(frozen=True)
class StepDone:
    """One finished step of a build. size: bytes that it wrote or read, None where that says nothing."""

    label: str
    seconds: float
    size: int | None


# A label when a step begins, a StepDone when it has ended; in between, how far an engine is.
Progress = Callable[[str | StepDone | BuildProgress], None]
