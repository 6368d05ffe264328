"""The comparison with the reference as a stage of the build: every graph at every call, then the limits.

In: graphs in a folder and the reference's calls. Out: the largest error per graph, and the figures that the card shows.
Where a limit is broken the call that shows it best is made once more, to look for the worst layer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hart_edge.bundle.manifest import Plan, Quality, TensorSpec
from hart_edge.bundle.quality import Limits
from hart_edge.calib.scheme import Scheme
from hart_edge.engines.base import EngineLibrary
from hart_edge.errors import ParityError
from hart_edge.export.parity.compare import Arrays, GraphError, ParityCheck, place, remedy, require_observed
from hart_edge.export.parity.limits import Breach, find_breach
from hart_edge.export.parity.quality import QualityFigures
from hart_edge.export.parity.recording import Recording
from hart_edge.export.parity.sessions import Sessions
from hart_edge.export.parity.worst_layer import worst_layer
from hart_edge.export.stages.read import Source

TRACED_PROMPTS = slice(2)  # of all: tracing either went well or it did not


class ParityStage:
    """Compares the graphs of a build with the reference."""

    def __init__(self, source: Source, plan: Plan, recording: Recording, library: EngineLibrary, traced: Path) -> None:
        """recording: of the reference; traced: the folder of the graphs as traced."""
        self.source, self.plan, self.recording, self.library, self.traced = source, plan, recording, library, traced
        names = {str(step.graph) for step in plan.steps}
        self.scales = {name: [step.scale for step in plan.steps if step.graph == name] for name in names}

    def check_traced(self) -> None:
        """Hold the traced graphs against the reference on the first prompts. Raises ParityError."""
        check = self._check(self.traced, dict.fromkeys(self.source.graphs, Scheme.FLOAT32))
        self.recording.show(check, TRACED_PROMPTS)
        require_observed(check)

    def check_final(
        self,
        folder: Path,
        schemes: Mapping[str, Scheme],
        inputs: Mapping[str, Sequence[TensorSpec]],
        limits: Limits,
    ) -> tuple[Mapping[str, GraphError], Quality]:
        """Hold the graphs of a folder, in their schemes, to the reference and the limits. inputs: as they take them.

        Returns the largest error of each graph, and the figures. Raises ParityError where a limit is broken; those on
        logits are for a checkpoint that reads prompts, since random weights and noise have no likeliest code.
        """
        model = self.source.model
        figures = QualityFigures(self.source.graphs["tokens"], len(model.patch_nums))
        check = self._check(folder, schemes, inputs, figures)
        self.recording.show(check)
        require_observed(check)
        quality = figures.quality()
        breach = find_breach(quality, limits, model.patch_nums, logits=self.source.tokenizer is not None)
        if breach is not None:
            exact = self._call(breach, figures.worst_input(breach.scale))
            feeds = check.feeds(breach.graph, exact)
            raise ParityError(
                f"{place(breach.graph, breach.scale)}: {breach.figures}; {check.explain(breach.graph, exact, feeds)}"
                f"nothing was written. {remedy(schemes[breach.graph].precision)}; where the pictures are good enough, "
                "move the limit (--min-top1, --max-kl, --min-psnr)"
            )
        return check.worst, quality

    def _check(
        self,
        folder: Path,
        schemes: Mapping[str, Scheme],
        inputs: Mapping[str, Sequence[TensorSpec]] | None = None,
        figures: QualityFigures | None = None,
    ) -> ParityCheck:
        def explain(graph: str, exact: Arrays, feeds: Arrays) -> str:
            if folder == self.traced:
                return ""  # there is nothing to compare its layers with
            paths = (self.traced / f"{graph}.onnx", folder / f"{graph}.onnx")
            worst = worst_layer(*paths, exact, feeds, self.library)
            if worst is None:
                return ""
            grows = f"whose error grows from {worst.before:.1e} to {worst.after:.1e}"
            return f"the worst layer is {worst.layer}, {grows}; "

        paths = {name: folder / f"{name}.onnx" for name in self.source.graphs}
        sessions = Sessions(paths, self.library, self.plan)
        return ParityCheck(sessions, schemes, inputs, self.scales, figures, explain, random=self.source.random)

    def _call(self, breach: Breach, prompt: int) -> Arrays:
        """The reference's inputs of the call that a breach is about, for one of the prompts."""
        calls = self.recording.calls(breach.graph, slice(prompt, prompt + 1))
        return calls[self.scales[breach.graph].index(breach.scale)].inputs
