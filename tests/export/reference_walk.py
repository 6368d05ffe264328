"""Two ways to run a model in torch, with one seed per image: the plan with its graph modules, and the plain loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hart_edge.bundle.plan import Buffer, BufferKind
from hart_edge.bundle.settings import Settings, Speed, over
from hart_edge.export.graphs import build_graphs
from hart_edge.export.plan_builder import build_plans
from hart_edge.export.run_plan import Observe, ReferenceRunner, run_plan
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.hart import HART, ScaleResult
from hart_edge.reference.noise import residual_normal, token_uniform
from hart_edge.reference.sampling import published_sampling
from hart_edge.runtime.fill import fill_with
from hart_edge.runtime.loop import Array
from tests.reference.tiny_hart import tiny_checkpoint, tiny_context


def tiny_model(folder: Path, seed: int, *, llm: dict | None = None, tokenizer: dict | None = None) -> HART:
    return load_checkpoint(tiny_checkpoint(folder, seed, llm=llm, tokenizer=tokenizer).folder).model


def tiny_inputs(model: HART, lengths: tuple[int, ...]) -> dict[str, Tensor]:
    """A context with one prompt of each length, padded on the right."""
    config = {"context_token": model.config.context_token, "context_dim": model.config.context_dim}
    context, mask = tiny_context(config, "right", lengths, seed=5)
    return {"context": torch.from_numpy(context), "context_mask": torch.from_numpy(mask)}


def walk_plan(model: HART, inputs: dict[str, Tensor], seeds: list[int], settings: Settings, observe: Observe) -> Tensor:
    """The image (B, 3, H, W) of the plan's graphs, run by the runtime's own loop."""
    speed = Speed(settings.get("speed") or Speed.EXACT)
    graphs = build_graphs(model, None, (speed,))
    plans, constants = build_plans(model, graphs, (speed,))
    plan = plans[speed]
    sampling = over(published_sampling(len(model.patch_nums), model.tokenizer_config.vocab_size), settings)
    given = {name: tensor.numpy() for name, tensor in inputs.items()}
    fills = [fill_with(given, seed, sampling, constants.__getitem__) for seed in seeds]

    def fill(name: str, buffer: Buffer) -> Array:
        if buffer.kind is BufferKind.NOISE:
            return np.concatenate([one(name, buffer) for one in fills])
        return fills[0](name, buffer)

    return torch.from_numpy(run_plan(plan, ReferenceRunner(graphs, observe), fill, len(seeds)))


def run_reference(
    model: HART, inputs: dict[str, Tensor], seeds: list[int], settings: Settings
) -> tuple[list[ScaleResult], Tensor]:
    """The results of every scale, and the image (B, 3, H, W), of HART.scales with the same noise."""
    scales, tokens = len(model.patch_nums), model.patch_nums[-1] ** 2
    draws = residual_normal(
        seeds, scales - 1, model.config.num_sampling_steps + 1, tokens, model.tokenizer_config.z_channels
    )
    noise = [draw.flatten(0, 1) for draw in draws.unbind(1)]  # (B * P * P, Z) each

    def uniform(scale: int, shape: tuple[int, int, int]) -> Tensor:
        return token_uniform(seeds, scale, *shape[1:])

    results = list(model.scales(inputs["context"], inputs["context_mask"], uniform, noise, settings))
    return results, model.decode(results[-1].f_hat)


def largest(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max())
