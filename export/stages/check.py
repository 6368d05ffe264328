"""The comparison with the reference: every graph at every call, then the limits.

In: graphs in a folder and the reference's calls. Out: the largest error per graph, and the figures that the card shows.
Where a limit is broken, the call that shows it best is made once more, to look for the worst layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hart_edge.bundle.manifest import Plan, Quality, TensorSpec
from hart_edge.calib.scheme import Scheme
from hart_edge.errors import ParityError
from hart_edge.export.parity.compare import (
    Arrays,
    GivenArrays,
    GraphError,
    ParityCheck,
    place,
    remedy,
    require_observed,
)
from hart_edge.export.parity.contexts import MAX_KL, MIN_COSINE, MIN_TOP_1, ContextFigures, measure_contexts
from hart_edge.export.parity.limits import Breach
from hart_edge.export.parity.quality import QualityFigures
from hart_edge.export.parity.recording import Recording
from hart_edge.export.parity.sessions import Sessions
from hart_edge.export.parity.worst_layer import worst_layer
from hart_edge.export.plan_builder import with_dtypes
from hart_edge.export.stages.context import BuildContext
from hart_edge.export.stages.decide import DecideResult
from hart_edge.export.stages.read import PARITY_SEED
from hart_edge.export.stages.record import RecordResult
from hart_edge.export.stages.trace import TraceResult
from hart_edge.export.stages.write import WriteResult

TRACED_PROMPTS = slice(2)  # of all: tracing either went well or it did not


@dataclass(frozen=True)
class CheckResult:
    """worst: the largest error of each graph."""

    worst: Mapping[str, GraphError]
    quality: Quality
    contexts: ContextFigures | None = None  # of a 4-bit text model


def check_traced(context: BuildContext, traced: TraceResult, recorded: RecordResult) -> None:
    """Compare the traced graphs with the reference on the first prompts. Raises ParityError."""
    with context.step("comparing every graph with the reference, as traced"):
        schemes = dict.fromkeys(traced.source.graphs, Scheme.FLOAT32)
        check = _check(context, traced, traced.folder, schemes)
        recorded.exact.show(check, TRACED_PROMPTS)
        _check_speeds(context, traced, recorded, check)
        require_observed(check)


def check(
    context: BuildContext, traced: TraceResult, recorded: RecordResult, decided: DecideResult, written: WriteResult
) -> CheckResult:
    """Compare the written graphs with the reference, and the figures with the limits. Raises ParityError.

    Limits on logits are for a checkpoint that reads prompts, since random weights and noise have no likeliest code.
    """
    source, limits, recording = traced.source, context.options.effective_limits, recorded.exact
    with context.step(f"comparing every graph with the reference, at {context.options.precision}"):
        figures = QualityFigures(source.graphs["tokens"], len(source.model.patch_nums))
        check = _check(context, traced, written.folder, decided.schemes, decided.inputs, figures)
        recording.show(check)
        _check_speeds(context, traced, recorded, check)
        require_observed(check)
        quality = figures.quality()
        breach = context.tools.judge(quality, limits, source.model.patch_nums, logits=source.has_likely_codes)
        if breach is not None:
            exact = _inputs_at(traced.plan, recording, breach, figures.worst_input(breach.scale))
            feeds = check.feeds(breach.graph, exact)
            raise ParityError(
                f"{place(breach.graph, breach.scale)}: {breach.figures}; {check.explain(breach.graph, exact, feeds)}"
                f"nothing was written. {remedy(decided.schemes[breach.graph].precision)}; where the pictures are good "
                "enough, move the limit (--min-top1, --max-kl, --min-psnr)"
            )
    return CheckResult(check.worst, quality, _check_contexts(context, traced, recording, decided, written))


def _check_speeds(context: BuildContext, traced: TraceResult, recorded: RecordResult, check: ParityCheck) -> None:
    """Compare the graphs of a check in the shapes of the other speeds as well. Raises ParityError."""
    check.watch = None  # figures of quality are those of the exact speed
    for speed, recording in recorded.speeds.items():
        check.scales = _scales(traced.plans[speed])
        check.calls.clear()
        recording.show(check)


def _check_contexts(
    context: BuildContext, traced: TraceResult, recording: Recording, decided: DecideResult, written: WriteResult
) -> ContextFigures | None:
    """The figures of a 4-bit text model, None of any other. Raises ParityError where they are beyond its limits."""
    source = traced.source
    if decided.schemes.get("text_model") is not Scheme.INT4_BLOCKS:
        return None
    with context.step("comparing contexts of the 4-bit text model, and the logits that follow"):
        paths = {name: written.folder / f"{name}.onnx" for name in source.graphs}
        sessions = Sessions(paths, traced.library, [traced.plan])
        fills = [traced.fill(inputs, PARITY_SEED) for inputs in source.parity_inputs()]
        plan = with_dtypes(traced.plan, decided.specs)
        found = measure_contexts(plan, recording, sessions, source.graphs["tokens"], fills)
    context.say(f"text_model: {found.in_words()}")
    if source.has_likely_codes and not found.within:
        raise ParityError(
            f"graph text_model: {found.in_words()}; limits {MIN_COSINE:g}, {MAX_KL:g} and {100 * MIN_TOP_1:g} %; "
            "nothing was written. Try --text-precision int8"
        )
    return found


def _check(
    context: BuildContext,
    traced: TraceResult,
    folder: Path,
    schemes: Mapping[str, Scheme],
    inputs: Mapping[str, Sequence[TensorSpec]] | None = None,
    figures: QualityFigures | None = None,
) -> ParityCheck:
    """A check of the graphs in a folder. inputs: as they take them; figures: sees every call."""

    def explain(graph: str, exact: GivenArrays, feeds: GivenArrays) -> str:
        if folder == traced.folder:
            return ""  # there is nothing to compare its layers with
        worst = worst_layer(traced.paths[graph], folder / f"{graph}.onnx", exact, feeds, traced.library)
        if worst is None:
            return ""
        grows = f"whose error grows from {worst.before:.1e} to {worst.after:.1e}"
        return f"the worst layer is {worst.layer}, {grows}; "

    source = traced.source
    paths = {name: folder / f"{name}.onnx" for name in source.graphs}
    sessions = Sessions(paths, traced.library, traced.plans.values())
    return ParityCheck(sessions, schemes, inputs, _scales(traced.plan), figures, explain, random=source.random)


def _scales(plan: Plan) -> dict[str, list[int | None]]:
    """Per graph the scales of its calls for one image, in order."""
    names = dict.fromkeys(str(step.graph) for step in plan.steps)
    return {name: [step.scale for step in plan.steps if step.graph == name] for name in names}


def _inputs_at(plan: Plan, recording: Recording, breach: Breach, prompt: int) -> Arrays:
    """The reference's inputs of the call that a breach is about, for one of the prompts."""
    calls = recording.calls(breach.graph, slice(prompt, prompt + 1))
    return calls[_scales(plan)[breach.graph].index(breach.scale)].inputs
