"""The loop of a build: the plan, executed by whatever computes its graphs.

In: a plan and an Execute, which the reference's modules are one of. Out: the image. The build runs it twice: on the
parity prompts with the reference, which export/parity/recording.py keeps, and on those of calibration with the traced graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from hart_edge.bundle.manifest import Buffer, BufferKind, Distribution, Plan
from hart_edge.bundle.plan import touched
from hart_edge.bundle.settings import Sampling
from hart_edge.export.graphs import GraphModule
from hart_edge.reference.noise import residual_normal, token_uniform
from hart_edge.runtime.settings import setting_value

# Computes a call of a graph: its name, its inputs and the names of the outputs that are wanted, which it returns.
Execute = Callable[[str, dict[str, Tensor], Collection[str]], dict[str, Tensor]]
# Sees a call of a graph: its name, its inputs and the outputs that were wanted.
Observer = Callable[[str, dict[str, Tensor], dict[str, Tensor]], None]


def by_reference(graphs: Mapping[str, GraphModule], observe: Observer) -> Execute:
    """An Execute of the reference's modules, which shows every call to `observe`."""

    def execute(graph: str, inputs: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
        module = graphs[graph]
        with torch.no_grad():
            results = module(*(inputs[tensor.name] for tensor in module.inputs))
        made = {tensor.name: result for tensor, result in zip(module.outputs, results, strict=True)}
        outputs = {name: made[name] for name in wanted}
        observe(graph, inputs, outputs)
        return outputs

    return execute


def walk(
    plan: Plan,
    execute: Execute,
    constants: Mapping[str, NDArray[Any]],
    sampling: Sampling,
    inputs: Mapping[str, Tensor],
    seeds: Sequence[int],
) -> Tensor:
    """Execute a plan. Returns the image (B, 3, H, W).

    sampling: what the buffers of kind setting hold; inputs: the caller's buffers, batch len(seeds).
    """
    buffers: dict[str, Tensor] = dict(inputs)
    sizes = {"B": len(seeds), "2B": 2 * len(seeds)}

    def source(name: str, buffer: Buffer) -> Tensor:
        shape = [sizes[size] if isinstance(size, str) else size for size in buffer.shape]
        if buffer.kind is BufferKind.ROWS:
            return rows(buffer)
        if buffer.kind in (BufferKind.ZERO, BufferKind.CACHE):
            return torch.zeros(shape)
        if buffer.kind is BufferKind.CONSTANT:
            return torch.from_numpy(constants[buffer.constant or ""])
        if buffer.kind is BufferKind.NOISE:
            draw = token_uniform if buffer.distribution is Distribution.UNIFORM else residual_normal
            return draw(seeds, buffer.scale or 0, *shape[1:])
        assert buffer.setting is not None, name  # inputs and values are there already
        return torch.from_numpy(setting_value(sampling, buffer))

    def rows(buffer: Buffer) -> Tensor:
        assert buffer.cache is not None
        if buffer.cache not in buffers:
            buffers[buffer.cache] = source(buffer.cache, plan.buffers[buffer.cache])
        return buffers[buffer.cache][buffer.start : buffer.end]

    for index, step in enumerate(plan.steps):
        for name in step.inputs.values():
            if name not in buffers:
                buffers[name] = source(name, plan.buffers[name])
        feeds = {tensor: buffers[name] for tensor, name in step.inputs.items()}
        made = execute(str(step.graph), feeds, step.outputs)
        for tensor, name in step.outputs.items():
            if plan.buffers[name].kind is BufferKind.ROWS:
                rows(plan.buffers[name]).copy_(made[tensor])
            else:
                buffers[name] = made[tensor]
        for name in touched(step, plan.buffers) - {"image"}:
            if plan.buffers[name].last == index:
                buffers.pop(name, None)
    return buffers["image"]
