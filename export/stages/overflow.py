"""Which tensors FP16 may not hold, because the loop brings them near its largest number: part of the decisions."""

from __future__ import annotations

from collections.abc import Mapping

from hart_edge.calib.calibrate.overflow import OverflowWatch
from hart_edge.calib.calibrate.prompts import FIRST_SEED
from hart_edge.calib.graph_files import read_graph
from hart_edge.calib.rewrite.fp16 import tensors_in_fp16
from hart_edge.calib.scheme import Scheme
from hart_edge.export.run_plan import encode
from hart_edge.export.stages.context import BuildContext
from hart_edge.export.stages.read import ReadResult
from hart_edge.export.stages.trace import TraceResult

OVERFLOW_PROMPTS = 4


def find_overflow(
    context: BuildContext, read: ReadResult, traced: TraceResult, schemes: Mapping[str, Scheme]
) -> dict[str, frozenset[str]]:
    """Per graph whose tensors are FP16, those that have to stay in float32."""
    fp16 = [name for name, scheme in schemes.items() if scheme.fp16_activations]
    if not fp16:
        return {}
    paths, rewrite = traced.paths, context.tools.rewrite
    inputs = (read.calibration_inputs or tuple(traced.source.parity_inputs()))[:OVERFLOW_PROMPTS]
    with context.step(f"looking for overflow of FP16 on {len(inputs)} prompts"):
        tensors = {}
        for name in fp16:
            tensors[name] = tensors_in_fp16(rewrite(read_graph(paths[name]), Scheme.FLOAT16, {}, traced.folder))
        with OverflowWatch(paths, tensors, traced.library) as watch:
            contexts = [traced.read_prompt(watch, one) for one in inputs]
            watch.unload("text_model")
            for index, (one, known) in enumerate(zip(inputs, contexts, strict=True)):
                image = traced.draw(watch, one, FIRST_SEED + index, known)
                encode(watch, traced.source.graphs["encoder"], image)
            wide = watch.wide()
    for name, found in wide.items():
        if found:
            context.say(f"{name}: {', '.join(sorted(found))} stay in float32")
    return wide
