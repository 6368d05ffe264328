"""Hold the reference against recorded values, or record its own for later versions and for bundles.

In: a checkpoint folder, for a check with golden.npz. Out: RecordResults (golden_records.py), or golden.npz.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hart_edge.bundle.settings import Settings
from hart_edge.checks.golden_records import (
    EXACT,
    LATENT_TOLERANCE,
    LOGITS_TOLERANCE,
    MISFIT,
    RECORDS_FILE,
    RecordResult,
    Records,
    check_inputs,
    compare,
    guidance_of,
    read_records,
    record_of,
)
from hart_edge.errors import CheckpointError, border, bordered
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.hart import HART
from hart_edge.staging import staged_folder

CFG_SCALE = 4.5  # of a recording
PICTURES, CALLS = 2, 6  # of a recording: images, and rows of the residual network's single call
Value = tuple[str, NDArray[Any], float]  # a record's name, what the reference computes for it, its tolerance


@bordered(CheckpointError, *MISFIT)
def check_reference(folder: str | Path) -> Iterator[RecordResult]:
    """Compute every record of DIR/golden.npz with the reference model of the same folder."""
    folder = Path(folder)
    records, model = read_records(folder), load_checkpoint(folder).model
    config, z = model.config, model.tokenizer_config.z_channels
    shapes = {
        "context": (config.context_token, config.context_dim),
        "context_mask": (config.context_token,),
        **{f"residual.noise{i}": (z,) for i in range(config.num_sampling_steps + 1)},
        "teacher.input": (sum(side * side for side in model.patch_nums[1:]), z),
        "tok.input": (3, model.image_size, model.image_size),
        "resnet.x": (z,),
        "resnet.c": (config.embed_dim,),
    }
    check_inputs(records, f"the model in {folder}", shapes)
    for name, found, tolerance in reference_values(model, records, guidance_of(records, len(model.patch_nums))):
        yield compare(name, found, records, tolerance)


def record_reference(folder: str | Path) -> int:
    """Write DIR/golden.npz: inputs drawn with a fixed seed, and what the reference model of DIR computes from them.

    Returns how many records it holds. Raises CheckpointError where there is one already, or it cannot be written.
    """
    folder = Path(folder)
    file = folder / RECORDS_FILE
    if file.exists():
        raise CheckpointError(f"{file}: expected no records, found some; move them away first, they are not replaced")
    model = load_checkpoint(folder).model
    records = recording_inputs(model)
    for name, found, _ in reference_values(model, records, CFG_SCALE):
        records[name] = found
    with (
        border(CheckpointError, file, "could not be written", "make the folder writable"),
        staged_folder(file) as staged,
    ):
        np.savez_compressed(staged / RECORDS_FILE, **records)  # type: ignore[arg-type]  # numpy's stub: allow_pickle
        (staged / RECORDS_FILE).replace(file)
    return len(records)


def recording_inputs(model: HART) -> Records:
    """Standard normal numbers in the shapes of tests/golden/README.md. The context stands for a text model's output."""
    config, z = model.config, model.tokenizer_config.z_channels
    generator = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return generator.standard_normal(shape, np.float32)

    tokens, final = config.context_token, model.patch_nums[-1] ** 2
    mask = np.arange(tokens) < np.array([[tokens], [max(1, tokens // 2)]])  # one full, one half
    noise = [normal(PICTURES * final, z), *(normal(2 * PICTURES * final, z) for _ in range(config.num_sampling_steps))]
    records: Records = {
        "context": normal(PICTURES, tokens, config.context_dim),
        "context_mask": mask,
        **{f"residual.noise{i}": draw for i, draw in enumerate(noise)},
        "teacher.input": normal(PICTURES, sum(side * side for side in model.patch_nums[1:]), z),
        "tok.input": normal(PICTURES, 3, model.image_size, model.image_size).clip(-1, 1),
        "resnet.x": normal(CALLS, z),
        "resnet.t": generator.integers(0, 1000, CALLS),
        "resnet.c": normal(CALLS, config.embed_dim),
    }
    return records


def reference_values(model: HART, records: Records, cfg_scale: float) -> Iterator[Value]:
    """Every record that the model computes, from those that are inputs."""
    with torch.no_grad():
        yield from _generation(model, records, cfg_scale)
        yield from _teacher(model, records)
        yield from _tokenizer(model, records)
        yield from _residual(model, records)


def _tensor(records: Records, name: str) -> torch.Tensor:
    return torch.from_numpy(record_of(records, name))


def _generation(model: HART, records: Records, cfg_scale: float) -> Iterator[Value]:
    context, mask = _tensor(records, "context"), _tensor(records, "context_mask")
    yield "context_position_ids", (mask.long().cumsum(1) - 1).numpy(), EXACT
    noise = [_tensor(records, f"residual.noise{i}") for i in range(model.config.num_sampling_steps + 1)]
    argmax = Settings(cfg_scale=cfg_scale, top_k=1, smooth=False)

    def centre(scale: int, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.full(shape, 0.5)  # the choice is the argmax: no number is drawn

    for result in model.scales(context, mask, centre, noise, argmax, both_residuals=True):
        prefix = f"stage{result.scale}"
        yield f"{prefix}.logits", result.logits.numpy(), LOGITS_TOLERANCE
        yield f"{prefix}.indices", result.indices.numpy(), EXACT
        if result.next is not None:
            yield f"{prefix}.f_hat", result.f_hat.numpy(), LATENT_TOLERANCE
            yield f"{prefix}.next", result.next.numpy(), LATENT_TOLERANCE
    assert result.condition is not None and result.residual is not None  # of the last scale
    yield "residual.condition", result.condition.numpy(), LOGITS_TOLERANCE
    yield "residual.cfg", np.array(result.strength, np.float32), 1e-6
    yield "residual.timesteps", np.array(model.residual.schedule.timesteps), EXACT
    yield "residual.sample", result.residual.numpy(), LATENT_TOLERANCE
    yield "image", model.decode(result.f_hat).numpy(), LATENT_TOLERANCE


def _teacher(model: HART, records: Records) -> Iterator[Value]:
    context, mask = _tensor(records, "context"), _tensor(records, "context_mask")
    logits = model.teacher_forced(_tensor(records, "teacher.input"), context, mask)
    yield "teacher.logits", logits.numpy(), LOGITS_TOLERANCE


def _tokenizer(model: HART, records: Records) -> Iterator[Value]:
    latent = model.autoencoder.encode(_tensor(records, "tok.input"))
    yield "tok.latent", latent.numpy(), LATENT_TOLERANCE
    indices, _, rest = model.quantizer.encode(latent, phi_at_last=False)
    for scale, found in enumerate(indices):
        yield f"tok.indices{scale}", found.numpy(), EXACT
    yield "tok.rest", rest.numpy(), LATENT_TOLERANCE
    _, f_hat, _ = model.quantizer.encode(latent, phi_at_last=True)
    yield "tok.f_hat_discrete", f_hat.numpy(), LATENT_TOLERANCE
    for name, decoded in (("discrete", f_hat), ("continuous", latent)):
        image = model.autoencoder.decode(decoded).clamp(-1, 1)
        yield f"tok.decode_{name}", image.numpy(), LATENT_TOLERANCE


def _residual(model: HART, records: Records) -> Iterator[Value]:
    x, t, c = (_tensor(records, f"resnet.{name}") for name in "xtc")
    yield "resnet.y", model.residual(x, t, c).numpy(), LATENT_TOLERANCE
