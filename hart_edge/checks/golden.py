"""Hold the reference against recorded values: one line a record, name, largest error, tolerance, ok.

In: a checkpoint folder with golden.npz. Out: RecordResults (golden_records.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hart_edge.bundle.settings import Settings
from hart_edge.checks.golden_records import (
    EXACT,
    LATENT_TOLERANCE,
    LOGITS_TOLERANCE,
    RecordResult,
    Records,
    compare,
    guidance_of,
    read_records,
    record_of,
)
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.hart import HART


def check_reference(folder: str | Path) -> Iterator[RecordResult]:
    """Compute every record of DIR/golden.npz with the reference model of the same folder."""
    folder = Path(folder)
    records, model = read_records(folder), load_checkpoint(folder).model
    with torch.no_grad():
        yield from _generation(model, records)
        yield from _teacher(model, records)
        yield from _tokenizer(model, records)
        yield from _residual(model, records)


def _tensor(records: Records, name: str) -> torch.Tensor:
    return torch.from_numpy(record_of(records, name))


def _generation(model: HART, records: Records) -> Iterator[RecordResult]:
    context, mask = _tensor(records, "context"), _tensor(records, "context_mask")
    yield compare("context_position_ids", (mask.long().cumsum(1) - 1).numpy(), records, EXACT)
    noise = [_tensor(records, f"residual.noise{i}") for i in range(model.config.num_sampling_steps + 1)]
    argmax = Settings(cfg_scale=guidance_of(records, len(model.patch_nums)), top_k=1, smooth=False)

    def centre(scale: int, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.full(shape, 0.5)  # the choice is the argmax: no number is drawn

    for result in model.scales(context, mask, centre, noise, argmax, both_residuals=True):
        prefix = f"stage{result.scale}"
        yield compare(f"{prefix}.logits", result.logits.numpy(), records, LOGITS_TOLERANCE)
        yield compare(f"{prefix}.indices", result.indices.numpy(), records, EXACT)
        if result.next is not None:
            yield compare(f"{prefix}.f_hat", result.f_hat.numpy(), records, LATENT_TOLERANCE)
            yield compare(f"{prefix}.next", result.next.numpy(), records, LATENT_TOLERANCE)
    assert result.condition is not None and result.residual is not None  # of the last scale
    yield compare("residual.condition", result.condition.numpy(), records, LOGITS_TOLERANCE)
    yield compare("residual.cfg", np.array(result.strength, np.float32), records, 1e-6)
    yield compare("residual.timesteps", np.array(model.residual.schedule.timesteps), records, EXACT)
    yield compare("residual.sample", result.residual.numpy(), records, LATENT_TOLERANCE)
    yield compare("image", model.decode(result.f_hat).numpy(), records, LATENT_TOLERANCE)


def _teacher(model: HART, records: Records) -> Iterator[RecordResult]:
    context, mask = _tensor(records, "context"), _tensor(records, "context_mask")
    logits = model.teacher_forced(_tensor(records, "teacher.input"), context, mask)
    yield compare("teacher.logits", logits.numpy(), records, LOGITS_TOLERANCE)


def _tokenizer(model: HART, records: Records) -> Iterator[RecordResult]:
    latent = model.autoencoder.encode(_tensor(records, "tok.input"))
    yield compare("tok.latent", latent.numpy(), records, LATENT_TOLERANCE)
    indices, _, rest = model.quantizer.encode(latent, phi_at_last=False)
    for scale, found in enumerate(indices):
        yield compare(f"tok.indices{scale}", found.numpy(), records, EXACT)
    yield compare("tok.rest", rest.numpy(), records, LATENT_TOLERANCE)
    _, f_hat, _ = model.quantizer.encode(latent, phi_at_last=True)
    yield compare("tok.f_hat_discrete", f_hat.numpy(), records, LATENT_TOLERANCE)
    for name, decoded in (("discrete", f_hat), ("continuous", latent)):
        image = model.autoencoder.decode(decoded).clamp(-1, 1)
        yield compare(f"tok.decode_{name}", image.numpy(), records, LATENT_TOLERANCE)


def _residual(model: HART, records: Records) -> Iterator[RecordResult]:
    x, t, c = (_tensor(records, f"resnet.{name}") for name in "xtc")
    yield compare("resnet.y", model.residual(x, t, c).numpy(), records, LATENT_TOLERANCE)
