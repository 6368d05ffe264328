"""The execution plan: which graph runs when, and the named buffers that connect them (docs/bundle.md).

In: a model's configuration and the graphs' specifications. Out: a Plan for every speed, and the tensors of
constants.bin. They are computed once, here, so that every runner only executes one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hart_edge.bundle.manifest import (
    Buffer,
    BufferKind,
    ComponentName,
    Distribution,
    Dtype,
    Plan,
    Step,
    TensorSpec,
    bytes_per_image,
    lifetimes,
)
from hart_edge.bundle.settings import NAMES, PER_SCALE, Speed
from hart_edge.export.graph_module import GraphModule
from hart_edge.reference.dial import Dial, dial_of, steps_of_run
from hart_edge.reference.hart import HART
from hart_edge.reference.quantizer import downsample_matrix, upsample_matrix
from hart_edge.reference.transformer import scale_coordinates
from hart_edge.runtime.random import Purpose

BRANCHES = ("", "null_")  # of the guidance, in the names of keys and values

Extents = tuple[int | str, ...]


class PlanBuilder:
    """Collects steps in order; buffers come into being where they are first named."""

    def __init__(self, model: HART, graphs: Mapping[str, GraphModule]) -> None:
        self.model, self.graphs = model, graphs
        self.constants: dict[str, NDArray[Any]] = {}
        self._steps: list[Step] = []
        self._buffers: dict[str, tuple[BufferKind, Dtype, Extents, dict[str, Any]]] = {}

    def constant(self, name: str, value: NDArray[Any]) -> str:
        self.constants[name] = np.ascontiguousarray(value)
        return self._add(name, BufferKind.CONSTANT, str(value.dtype), value.shape, constant=name)

    def first(self, count: int) -> str:
        """A constant of the numbers 0 to count - 1: all tokens of a scale, or as many of some order."""
        return self.constant(f"first.{count}", np.arange(count))

    def sources(self, tokens: int) -> str:
        """A constant for a scale whose tokens are all computed: each has a row of its own."""
        return self.constant(f"sources_of_all.{tokens}", np.arange(tokens)[None])

    def settings(self, graph: str, scale: int) -> dict[str, str]:
        """Buffers for a graph's inputs that are settings, by the inputs' names, which are the settings' own."""
        buffers = {}
        for tensor in self.graphs[graph].inputs:
            if tensor.name in NAMES:
                own = scale if tensor.name in PER_SCALE else None
                name = tensor.name if own is None else f"{tensor.name}.{own}"
                further = {"setting": tensor.name, "scale": own}
                buffers[tensor.name] = self._add(name, BufferKind.SETTING, tensor.dtype, (1,), **further)
        return buffers

    def caller_input(self, graph: str, name: str) -> str:
        tensor = next(t for t in self.graphs[graph].inputs if t.name == name)
        return self._add(name, BufferKind.INPUT, tensor.dtype, tensor.shape)

    def zero(self, name: str, shape: Extents) -> str:
        return self._add(name, BufferKind.ZERO, "float32", shape)

    def cache(self, name: str, row: Extents) -> None:
        """Memory for rows of this shape; as many as rows() appends."""
        self._add(name, BufferKind.CACHE, "float32", (0, *row))

    def rows(self, cache: str, name: str, start: int, count: int) -> str:
        """A range of a cache's rows."""
        _, dtype, (most, *row), _ = self._buffers[cache]
        self._add(cache, BufferKind.CACHE, dtype, (max(int(most), start + count), *row))
        return self._add(name, BufferKind.ROWS, dtype, (count, *row), cache=cache, start=start)

    def noise(
        self, name: str, distribution: Distribution, purpose: int, scale: int, shape: Extents, draw: int | None = None
    ) -> str:
        further = {"distribution": distribution, "purpose": purpose, "scale": scale, "draw": draw}
        return self._add(name, BufferKind.NOISE, "float32", shape, **further)

    def step(
        self,
        graph: str,
        scale: int | None,
        inputs: dict[str, str],
        outputs: dict[str, str],
        sizes: Mapping[str, int | str] | None = None,
        *,
        ends_scale: bool = False,
    ) -> None:
        """Add a step. `sizes` gives the symbols of the graph's outputs (other than B and 2B) their values.

        An output goes into the rows that its buffer names, or is a value that comes into being here.
        """
        specification = {tensor.name: tensor for tensor in self.graphs[graph].outputs}
        for tensor_name, buffer in outputs.items():
            tensor = specification[tensor_name]
            if buffer in self._buffers:
                continue  # rows of a cache
            shape = tuple((sizes or {}).get(size, size) if isinstance(size, str) else size for size in tensor.shape)
            self._add(buffer, BufferKind.VALUE, tensor.dtype, shape)
        self._steps.append(Step(ComponentName(graph), scale, inputs, outputs, ends_scale))

    def finish(self) -> Plan:
        buffers = {
            name: Buffer(kind, dtype, shape, bytes_per_image(dtype, shape), 0, 0, **further)
            for name, (kind, dtype, shape, further) in self._buffers.items()
        }
        for name, (first, last) in lifetimes(self._steps, buffers).items():
            buffers[name] = replace(buffers[name], first=first, last=last)
        return Plan(buffers, tuple(self._steps))

    def _add(self, name: str, kind: BufferKind, dtype: str, shape: Extents, **further: Any) -> str:
        self._buffers[name] = (kind, Dtype(dtype), tuple(shape), further)
        return name


def build_plans(
    model: HART, graphs: Mapping[str, GraphModule], speeds: Sequence[Speed] = (Speed.EXACT,)
) -> tuple[dict[Speed, Plan], dict[str, NDArray[Any]]]:
    """The plan of each speed, and the constants of all by name."""
    plans: dict[Speed, Plan] = {}
    constants: dict[str, NDArray[Any]] = {}
    for speed in speeds:
        dial = dial_of(speed, model.patch_nums, model.config.num_sampling_steps)
        plans[speed], own = _build_plan(model, graphs, dial)
        constants |= own
    return plans, constants


def _build_plan(model: HART, graphs: Mapping[str, GraphModule], dial: Dial) -> tuple[Plan, dict[str, NDArray[Any]]]:
    build = PlanBuilder(model, graphs)
    config, sides = model.config, model.patch_nums
    count, final, z = len(sides), sides[-1], model.tokenizer_config.z_channels
    if "text_model" in graphs:
        ids = {"input_ids": build.caller_input("text_model", "input_ids")}
        build.step("text_model", None, ids, {"context": "context", "context_mask": "context_mask"})
    else:
        build.caller_input("context", "context")
        build.caller_input("context", "context_mask")
    lasting = {name: name for name in ("last_position", "own_position", "head_modulation")}
    modulation = {"modulation": "modulation"} if config.modulated else {}
    entry = {"x": "x.0", "rope_cos": "rope_cos.0", "rope_sin": "rope_sin.0"}
    inputs = {"context": "context", "context_mask": "context_mask"}
    parts = [
        f"{branch}{part}.{layer}" for layer in range(config.depth) for branch in BRANCHES for part in ("key", "value")
    ]
    for part in parts:
        build.cache(part, ("B", config.num_heads, config.head_dim))
    null_parts = {part: build.rows(part, f"{part}.0", 0, 1) for part in parts if part.startswith("null_")}
    build.step("context", None, inputs, entry | lasting | modulation | null_parts | {"null_hidden": "null_hidden.0"})
    rows = (1, 0, config.num_heads, config.head_dim)
    no_branch = {part: build.zero(f"past_null_{part}.empty", rows) for part in ("key", "value")}  # may differ in dtype
    f_hat = build.zero("f_hat.empty", ("B", z, final, final))
    cached = {part: int(part in null_parts) for part in parts}  # rows of each cache so far
    sources = build.sources(sides[0] ** 2)  # which row of a scale's latents each of its tokens takes
    for scale, side in enumerate(sides):
        last, guided = scale == count - 1, scale < dial.guided
        tokens = dial.kept[scale]
        width = config.context_token if scale == 0 else tokens
        running = [part for part in parts if part not in null_parts or (guided and scale > 0)]
        past = {f"past_{part}": build.rows(part, f"past_{part}.{scale}", 0, cached[part]) for part in running}
        past |= {f"past_{part}": no_branch[_kind(part)] for part in parts if part not in running}
        outputs = {} if last else {part: build.rows(part, f"{part}.{scale}", cached[part], width) for part in running}
        cached |= {part: cached[part] + width for part in outputs}
        hidden = {"hidden": f"hidden.{scale}", "null_hidden": f"null_hidden.{scale}"}
        outputs |= hidden if guided and scale > 0 else {"hidden": hidden["hidden"]}
        build.step("transformer", scale, entry | modulation | past, outputs, {"n": width, "U": "B"})
        if not guided:
            hidden["null_hidden"] = build.zero(f"null_hidden.empty.{scale}", (0, tokens, config.embed_dim))
        shape: Extents = ("B", tokens, model.tokenizer_config.vocab_size)
        choice = {
            **hidden,
            "head_modulation": "head_modulation",
            "positions": build.first(tokens) if scale > 0 else build.constant("last_of_context", np.array([width - 1])),
            "uniform": build.noise(f"uniform.{scale}", Distribution.UNIFORM, Purpose.TOKENS, scale, shape),
            **build.settings("tokens", scale),
        }
        if not guided:
            choice["cfg_scale"] = build.zero("cfg_scale.tokens.off", (1,))
        chosen = {name: f"{name}.{scale}" for name in ("logits", "indices", "latent", *(("codes",) if last else ()))}
        build.step("tokens", scale, choice, chosen, {"n": tokens})
        if last:
            inputs = {
                **hidden,
                "codes": f"codes.{scale}",
                "latent": f"latent.{scale}",
                "sources": sources,
                "past_f_hat": f_hat,
                **build.settings("residual", scale),
            }
            if not guided:
                inputs["cfg_scale"] = build.zero("cfg_scale.residual.off", (1,))
            _denoise(build, dial, scale, inputs)
            break
        following = scale + 1
        coordinates = scale_coordinates(sides[following], final).numpy()
        inputs = {
            "past_f_hat": f_hat,
            "latent": f"latent.{scale}",
            "sources": sources,
            "upsample": build.constant(f"upsample.{scale}", upsample_matrix(side, final).numpy()),
            "phi": build.constant(f"phi.{scale}", np.array([phi_of(model, scale)], np.int64)),
            "downsample": build.constant(f"downsample.{following}", downsample_matrix(sides[following], final).numpy()),
        }
        before, f_hat = f_hat, f"f_hat.{scale}"
        outputs = {"f_hat": f_hat, "next": f"next.{following}"}
        build.step("latent", scale, inputs, outputs, {"m": sides[following] ** 2}, ends_scale=True)
        both = following < dial.guided
        inputs = {
            "next": f"next.{following}",
            "level": build.constant(f"level.{following}", model.transformer.level(following).numpy()),
            "coordinates": build.constant(f"coordinates.{following}", coordinates),
            "last_position": "last_position" if both else "own_position",
        }
        entry = {name: f"{name}.{following}" for name in ("x", "rope_cos", "rope_sin")}
        build.step("embed", following, inputs, entry, {"n": sides[following] ** 2, "R": "2B" if both else "B"})
        if dial.kept[following] < sides[following] ** 2:
            entry, sources = _select(build, dial.kept[following], following, before, entry)
        else:
            sources = build.sources(sides[following] ** 2)
    pictures = {"pixels": "pixels", "finite": "finite", "image": "image"}
    build.step("decoder", None, {"f_hat": f"f_hat.{count - 1}"}, pictures)
    return build.finish(), build.constants


def _select(
    build: PlanBuilder, kept: int, scale: int, before: str, entry: Mapping[str, str]
) -> tuple[dict[str, str], str]:
    """Leave all but `kept` tokens of a scale out: what the transformer takes instead, and the buffer of sources.

    before: f_hat as the scale before the last one left it; entry: what the transformer would take for all tokens.
    """
    tokens = build.model.patch_nums[scale] ** 2
    inputs = {
        "next": f"next.{scale}",
        "past_f_hat": before,
        "downsample": f"downsample.{scale}",
        "ranks": build.first(kept),
        **entry,
    }
    taken = {name: f"kept_{buffer}" for name, buffer in entry.items()}
    outputs = {f"kept_{name}": buffer for name, buffer in taken.items()}
    outputs |= {name: f"{name}.{scale}" for name in ("change", "order", "sources")}
    build.step("select", scale, inputs, outputs, {"n": tokens, "k": kept})
    return taken, outputs["sources"]


def _denoise(build: PlanBuilder, dial: Dial, scale: int, inputs: Mapping[str, str]) -> None:
    """The runs of the residual graph that make the dial's denoising steps; the last of them ends the scale."""
    model, steps = build.model, dial.steps
    tokens, z = dial.kept[scale], model.tokenizer_config.z_channels
    run = steps_of_run(model.config.num_sampling_steps)
    with torch.no_grad():
        embeddings, constants = (each.numpy() for each in model.residual.steps(steps))

    def noise(name: str, draw: int, draws: int) -> str:
        shape: Extents = ("B", draws, tokens, z)
        return build.noise(name, Distribution.NORMAL, Purpose.RESIDUAL, scale, shape, draw)

    x = noise("residual_noise.start", 0, 1)
    for first in range(0, steps, run):
        own, last = f"{first}_of_{steps}", first + run == steps
        given = {
            **inputs,
            "past_x": x,
            "step_embeddings": build.constant(f"step_embeddings.{own}", embeddings[first : first + run]),
            "step_constants": build.constant(f"step_constants.{own}", constants[first : first + run]),
            "noise": noise(f"residual_noise.{first}", first + 1, run),
        }
        x = f"x_of_residual.{first}"
        outputs = {"residual": "residual", "f_hat": f"f_hat.{scale}"} if last else {"x": x}
        build.step("residual", scale, given, outputs, {"k": tokens}, ends_scale=last)


def _kind(part: str) -> str:
    """key or value, of a cache's name"""
    return part.split(".")[0].removeprefix("null_")


def phi_of(model: HART, scale: int) -> int:
    """Index of a scale's phi in the latent graph, which holds one identity where there are none."""
    return model.quantizer.phi_index(scale) if model.quantizer.phi else 0


def with_dtypes(plan: Plan, specs: Mapping[str, Sequence[TensorSpec]]) -> Plan:
    """The plan with every buffer of the dtype that the graphs' final schemes give it. specs: per graph, both sides."""
    dtypes = {(graph, spec.name): spec.dtype for graph, tensors in specs.items() for spec in tensors}
    buffers = dict(plan.buffers)
    for step in plan.steps:
        for tensor, name in (*step.inputs.items(), *step.outputs.items()):
            dtype, buffer = dtypes[str(step.graph), tensor], buffers[name]
            size = bytes_per_image(dtype, buffer.shape)
            buffers[name] = replace(buffer, dtype=dtype, bytes_per_image=size)
            if buffer.cache is not None:
                cache = buffers[buffer.cache]
                size = bytes_per_image(dtype, cache.shape)
                buffers[buffer.cache] = replace(cache, dtype=dtype, bytes_per_image=size)
    return Plan(buffers, plan.steps)
