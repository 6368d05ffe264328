"""The comparison with the reference as a stage of the build: every graph at every call, then the limits.

In: graphs in a folder and what a Source gives them to compute. Out: the largest error per graph, and the figures that
the card shows. Where a limit is broken the call that shows it best is made once more, to look for the worst layer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from calib.forms import Form
from engines.base import EngineLibrary
from export.gate import Breach, Limits, find_breach
from export.parity import Arrays, GraphError, ParityCheck, check_call, place, remedy, require_observed
from export.quality import QualityFigures
from export.sessions import Sessions
from export.source import PARITY_SEED, Inputs, Source
from export.worst_layer import worst_layer
from runtime.errors import ParityError
from runtime.manifest import Plan, Quality, TensorSpec

# Executes the plan on (inputs, seed), showing every call to the last argument (graph, inputs, outputs).
Walk = Callable[[Inputs, int, Callable[..., None]], Tensor]

TRACED_INPUTS = 2  # of all: tracing either went well or it did not


class ParityStage:
    """Compares the graphs of a build with the reference."""

    def __init__(self, source: Source, plan: Plan, walk: Walk, library: EngineLibrary, traced: Path) -> None:
        """traced: the folder of the graphs as traced."""
        self.source, self.plan, self.walk, self.library, self.traced = source, plan, walk, library, traced
        names = {str(step.graph) for step in plan.steps}
        self.scales = {name: [step.scale for step in plan.steps if step.graph == name] for name in names}

    def check_traced(self) -> None:
        """Hold the traced graphs against the reference on the first inputs. Raises ParityError."""
        check = self._check(self.traced, dict.fromkeys(self.source.graphs, Form.FLOAT32))
        self._compare(check, self.source.parity_inputs()[:TRACED_INPUTS])

    def check_final(
        self,
        folder: Path,
        forms: Mapping[str, Form],
        inputs: Mapping[str, Sequence[TensorSpec]],
        limits: Limits,
    ) -> tuple[Mapping[str, GraphError], Quality]:
        """Hold the graphs of a folder, in their forms, against the reference and the limits. inputs: as they take them.

        Returns the largest error of each graph, and the figures. Raises ParityError where a limit is broken; those on
        logits are for parity inputs that are prompts, since random weights and noise have no likeliest code.
        """
        model = self.source.model
        figures = QualityFigures(self.source.graphs["tokens"], len(model.patch_nums))
        check = self._check(folder, forms, inputs, figures)
        self._compare(check, self.source.parity_inputs())
        quality = figures.quality()
        breach = find_breach(quality, limits, model.patch_nums, logits=self.source.tokenizer is not None)
        if breach is not None:
            exact, feeds = check.feeds(breach.graph, self._call(breach, figures.worst_input(breach.scale)))
            raise ParityError(
                f"{place(breach.graph, breach.scale)}: {breach.figures}; {check.explain(breach.graph, exact, feeds)}"
                f"nothing was written. {remedy(forms[breach.graph].precision)}; where the pictures are good enough, "
                "move the limit (--min-top1, --max-kl, --min-psnr)"
            )
        return check.worst, quality

    def _check(
        self,
        folder: Path,
        forms: Mapping[str, Form],
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
        return ParityCheck(sessions, forms, inputs, self.scales, figures, explain, random=self.source.random)

    def _compare(self, check: ParityCheck, given: Sequence[Inputs]) -> None:
        for inputs in given:
            image = self.walk(inputs, PARITY_SEED, check)
            check_call(check, self.source.graphs["encoder"], [image * 2 - 1])
        require_observed(check)

    def _call(self, breach: Breach, index: int) -> dict[str, Tensor]:
        """The reference's inputs of the call that a breach is about, for one of the parity inputs."""
        call: dict[str, Tensor] = {}
        wanted, seen = self.scales[breach.graph].index(breach.scale), itertools.count()

        def observe(graph: str, feeds: dict[str, Tensor], _: dict[str, Tensor]) -> None:
            if graph == breach.graph and next(seen) == wanted:
                call.update(feeds)

        self.walk(self.source.parity_inputs()[index], PARITY_SEED, observe)
        return call
