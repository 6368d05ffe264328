"""Recording: the reference runs the loop on the parity prompts, the only time that it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hart_edge.bundle.settings import Speed
from hart_edge.export.parity.recording import Recorder, Recording
from hart_edge.export.run_plan import ReferenceRunner, encode
from hart_edge.export.stages.context import BuildContext
from hart_edge.export.stages.read import PARITY_SEED
from hart_edge.export.stages.trace import TraceResult
from hart_edge.runtime.loop import Array


@dataclass(frozen=True)
class RecordResult:
    """exact: every parity prompt; speeds: of every other speed the first of them."""

    exact: Recording
    speeds: Mapping[Speed, Recording]


def record(context: BuildContext, traced: TraceResult, folder: Path) -> RecordResult:
    """Every call of the reference. folder: for what memory does not hold; it is made.

    Frees most of the reference's weights in the end: no later stage needs more of it than its tokens graph.
    """
    source = traced.source
    folder.mkdir()
    recorders = {speed: Recorder(folder / speed) for speed in traced.plans}
    given = source.parity_inputs()
    running: Recorder

    def observe(graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        running(graph, inputs, outputs)

    reference = ReferenceRunner(source.graphs, observe)
    if source.text is not None:
        with context.step(f"running the reference's text model on {len(given)} prompts"):
            reference.read_ahead([each["input_ids"] for each in given])
        source.free_text_model()
    for speed, running in recorders.items():
        prompts = given if speed is Speed.EXACT else given[:1]
        told = "" if speed is Speed.EXACT else f", at the speed {speed}"
        with context.step(f"running the reference on {len(prompts)} prompts{told}"):
            for inputs in prompts:
                image = traced.draw(reference, inputs, PARITY_SEED, speed=speed)
                if speed is Speed.EXACT:
                    encode(reference, source.graphs["encoder"], image)
                running.end_prompt()
    source.free_weights()
    found = {speed: recorder.recording() for speed, recorder in recorders.items()}
    return RecordResult(found.pop(Speed.EXACT), found)
