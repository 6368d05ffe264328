"""Recording: the reference runs the loop on the parity prompts, the only time that it does."""

from __future__ import annotations

from pathlib import Path

from hart_edge.export.parity.recording import Recorder, Recording
from hart_edge.export.run_plan import ReferenceRunner, encode
from hart_edge.export.stages.context import BuildContext
from hart_edge.export.stages.read import PARITY_SEED
from hart_edge.export.stages.trace import TraceResult


def record(context: BuildContext, traced: TraceResult, folder: Path) -> Recording:
    """Every call of the reference. folder: for what memory does not hold; it is made.

    Frees most of the reference's weights in the end: no later stage needs more of it than its tokens graph.
    """
    source = traced.source
    recorder, given = Recorder(folder), source.parity_inputs()
    reference = ReferenceRunner(source.graphs, recorder)
    if source.text is not None:
        with context.step(f"running the reference's text model on {len(given)} prompts"):
            reference.read_ahead([each["input_ids"] for each in given])
        source.free_text_model()
    with context.step(f"running the reference on {len(given)} prompts"):
        for inputs in given:
            image = traced.draw(reference, inputs, PARITY_SEED)
            encode(reference, source.graphs["encoder"], image)
            recorder.end_prompt()
    source.free_weights()
    return recorder.recording()
