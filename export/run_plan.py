"""The loop of a build: the runtime's own, with another runner.

In: a plan, a Runner and a Fill. Out: the image. ReferenceRunner computes the graphs by the reference's modules, for
parity; calibration runs the same loop with instrumented graphs (calib/calibrate/collector.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from hart_edge.bundle.plan import ComponentName, Plan
from hart_edge.bundle.program import buffer_shape
from hart_edge.export.graph_module import GraphModule
from hart_edge.runtime.loop import Array, Buffers, Fill, Known, Runner, execute

# Sees a call of a graph: its name, its inputs and the outputs that were wanted. Arrays may be views of a KV cache, to
# which later steps append: whoever keeps them copies what is to outlive the loop.
Observe = Callable[[str, Mapping[str, Array], Mapping[str, Array]], None]


def run_plan(
    plan: Plan,
    runner: Runner,
    fill: Fill,
    batch: int = 1,
    known: Known | None = None,
    previews: Collection[int] = (),
) -> Array:
    """Execute a plan whole, but for steps that compute what is known. Returns the image (B, 3, H, W), float32 in
    [0, 1]. previews: scales before the last whose f_hat is decoded as well."""
    buffers = Buffers(plan, batch, fill, frozenset({"image"}))
    for scale in execute(plan, runner, buffers, known=known):
        if scale in previews:
            run_preview(plan, runner, buffers[f"f_hat.{scale}"], batch)
    return buffers["image"]


def run_preview(plan: Plan, runner: Runner, f_hat: Array, batch: int) -> None:
    """Decode what there is so far, as a preview does; what comes of it is for the runner alone."""
    step = plan.steps[-1]
    assert step.graph is ComponentName.DECODER
    made = {tensor: plan.buffers[name] for tensor, name in step.outputs.items()}
    outputs = {tensor: np.empty(buffer_shape(each, batch), each.dtype.value) for tensor, each in made.items()}
    runner.run(step.graph, {"f_hat": f_hat}, outputs)


class ReferenceRunner:
    """Computes graphs by the reference's modules, and shows every call to `observe`.

    A product of a transposed view rounds otherwise than one of its copy. So that figures are those of the plain loop, a
    module gets what another left as a view as that view, and not as the copy in the plan's buffer.
    """

    def __init__(self, graphs: Mapping[str, GraphModule], observe: Observe) -> None:
        self.graphs, self.observe = graphs, observe
        self._handed_on = frozenset(tensor.name for module in graphs.values() for tensor in module.inputs)
        self._views: dict[str, Tensor] = {}  # by tensor, the last of each
        self._read: dict[bytes, tuple[Tensor, ...]] = {}  # what the text model made of prompts, by their ids

    def read_ahead(self, prompts: Sequence[Array]) -> None:
        """Run the text model on prompts, (1, T) int64 each, before the loop comes to them; it is not needed again."""
        module = self.graphs["text_model"]
        with torch.no_grad():
            for ids in prompts:
                self._read[ids.tobytes()] = tuple(module(torch.from_numpy(ids)))

    def run(self, graph: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        module = self.graphs[graph]
        ahead = self._read.get(inputs["input_ids"].tobytes()) if graph == "text_model" else None
        with torch.no_grad():
            given = (self._input(tensor.name, inputs[tensor.name]) for tensor in module.inputs)
            results = module(*given) if ahead is None else ahead
        for tensor, result in zip(module.outputs, results, strict=True):
            if tensor.name in outputs:
                outputs[tensor.name][...] = result.numpy()
                if tensor.name in self._handed_on and not result.is_contiguous():
                    self._views[tensor.name] = result
        self.observe(graph, inputs, outputs)

    def _input(self, name: str, array: Array) -> Tensor:
        given, view = torch.from_numpy(array), self._views.get(name)
        return view if view is not None and torch.equal(view, given) else given


def encode(runner: Runner, encoder: GraphModule, image: Array) -> None:
    """Run the encoder, which no plan holds, on an image (1, 3, H, W) of values in [0, 1]."""
    shapes = {tensor: [1 if size == "B" else int(size) for size in tensor.shape] for tensor in encoder.outputs}
    outputs = {tensor.name: np.empty(shape, tensor.dtype.value) for tensor, shape in shapes.items()}
    runner.run(encoder.name, {"image": image * 2 - 1}, outputs)
