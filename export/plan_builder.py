"""The execution plan: which graph runs when, and the named buffers that connect them (docs/bundle.md).

In: a model's configuration and the graphs' specifications. Out: a Plan and the tensors of constants.bin. It is
computed once, here, so that every runner only executes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
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
from hart_edge.bundle.settings import NAMES, PER_SCALE
from hart_edge.export.graph_module import GraphModule
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

    def noise(self, name: str, distribution: Distribution, purpose: int, scale: int, shape: Extents) -> str:
        further = {"distribution": distribution, "purpose": purpose, "scale": scale}
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


def build_plan(model: HART, graphs: Mapping[str, GraphModule]) -> tuple[Plan, dict[str, NDArray[Any]]]:
    """The plan of a model, and its constants by name."""
    build = PlanBuilder(model, graphs)
    config, sides = model.config, model.patch_nums
    count, final, z = len(sides), sides[-1], model.tokenizer_config.z_channels
    if "text_model" in graphs:
        ids = {"input_ids": build.caller_input("text_model", "input_ids")}
        build.step("text_model", None, ids, {"context": "context", "context_mask": "context_mask"})
    else:
        build.caller_input("context", "context")
        build.caller_input("context", "context_mask")
    lasting = {"last_position": "last_position", "head_modulation": "head_modulation"}
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
    no_branch = build.zero("past_null.empty", (1, 0, config.num_heads, config.head_dim))
    f_hat = build.zero("f_hat.empty", ("B", z, final, final))
    cached = {part: int(part in null_parts) for part in parts}  # rows of each cache so far
    for scale, side in enumerate(sides):
        last = scale == count - 1
        tokens = side * side
        width = config.context_token if scale == 0 else tokens
        running = [part for part in parts if scale > 0 or part not in null_parts]
        past = {f"past_{part}": build.rows(part, f"past_{part}.{scale}", 0, cached[part]) for part in running}
        past |= {f"past_{part}": no_branch for part in parts if part not in running}
        outputs = {} if last else {part: build.rows(part, f"{part}.{scale}", cached[part], width) for part in running}
        cached |= {part: cached[part] + width for part in outputs}
        hidden = {"hidden": f"hidden.{scale}", "null_hidden": f"null_hidden.{scale}"}
        outputs |= hidden if scale > 0 else {"hidden": hidden["hidden"]}
        build.step("transformer", scale, entry | modulation | past, outputs, {"n": width, "U": "B"})
        predicting = [width - 1] if scale == 0 else list(range(tokens))
        shape: Extents = ("B", tokens, model.tokenizer_config.vocab_size)
        choice = {
            **hidden,
            "head_modulation": "head_modulation",
            "positions": build.constant(f"positions.{scale}", np.array(predicting, np.int64)),
            "uniform": build.noise(f"uniform.{scale}", Distribution.UNIFORM, Purpose.TOKENS, scale, shape),
            **build.settings("tokens", scale),
        }
        chosen = {name: f"{name}.{scale}" for name in ("logits", "indices", "latent", *(("codes",) if last else ()))}
        build.step("tokens", scale, choice, chosen, {"n": tokens})
        if last:
            shape = ("B", config.num_sampling_steps + 1, tokens, z)
            inputs = {
                **hidden,
                "codes": f"codes.{scale}",
                "latent": f"latent.{scale}",
                "past_f_hat": f_hat,
                **build.settings("residual", scale),
                "noise": build.noise("residual_noise", Distribution.NORMAL, Purpose.RESIDUAL, scale, shape),
            }
            outputs = {"residual": "residual", "f_hat": f"f_hat.{scale}"}
            build.step("residual", scale, inputs, outputs, ends_scale=True)
            break
        following = scale + 1
        coordinates = scale_coordinates(sides[following], final).numpy()
        inputs = {
            "past_f_hat": f_hat,
            "latent": f"latent.{scale}",
            "upsample": build.constant(f"upsample.{scale}", upsample_matrix(side, final).numpy()),
            "phi": build.constant(f"phi.{scale}", np.array([phi_of(model, scale)], np.int64)),
            "downsample": build.constant(f"downsample.{following}", downsample_matrix(sides[following], final).numpy()),
        }
        f_hat = f"f_hat.{scale}"
        outputs = {"f_hat": f_hat, "next": f"next.{following}"}
        build.step("latent", scale, inputs, outputs, {"m": sides[following] ** 2}, ends_scale=True)
        inputs = {
            "next": f"next.{following}",
            "level": build.constant(f"level.{following}", model.transformer.level(following).numpy()),
            "coordinates": build.constant(f"coordinates.{following}", coordinates),
            "last_position": "last_position",
        }
        entry = {name: f"{name}.{following}" for name in ("x", "rope_cos", "rope_sin")}
        build.step("embed", following, inputs, entry, {"n": sides[following] ** 2})
    pictures = {"pixels": "pixels", "finite": "finite", "image": "image"}
    build.step("decoder", None, {"f_hat": f"f_hat.{count - 1}"}, pictures)
    return build.finish(), build.constants


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
