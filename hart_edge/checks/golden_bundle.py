"""Hold a bundle against recorded values: the bundle's own loop, fed the recorded noise, choosing the argmax.

In: golden.npz and a bundle built from the same checkpoint. Out: RecordResults as in golden.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.plan import Buffer, BufferKind
from hart_edge.bundle.program import buffer_shape
from hart_edge.bundle.settings import Settings
from hart_edge.checks.golden_records import (
    EXACT,
    LATENT_TOLERANCE,
    LOGITS_TOLERANCE,
    MISFIT,
    RecordResult,
    Records,
    check_inputs,
    compare,
    guidance_of,
    read_records,
)
from hart_edge.engines.loading import load
from hart_edge.errors import BundleError, CheckpointError, bordered
from hart_edge.runtime.loop import Buffers, execute
from hart_edge.runtime.pipeline import Pipeline
from hart_edge.runtime.random import Purpose
from hart_edge.runtime.settings import check_settings, setting_value


@bordered(CheckpointError, *MISFIT)
def check_bundle(folder: str | Path, bundle: str | Path) -> Iterator[RecordResult]:
    """Compute the records of DIR/golden.npz that a bundle computes: the generation and the tokenizer.

    Of the residual only the conditional branch is compared, because the other never reaches the result and a bundle
    does not compute it; residual.condition and the single network call lie inside a graph.
    """
    records, pipeline = read_records(Path(folder)), load(bundle)
    if pipeline.manifest.tokenizer is not None:
        raise BundleError(
            f"{bundle}: takes a prompt, and golden records begin with a context array; build the golden checkpoint "
            "itself, which has no text_model/"
        )
    manifest = pipeline.manifest
    shapes = {
        "context": (manifest.context_tokens, manifest.context_dim),
        "context_mask": (manifest.context_tokens,),
        **{
            f"stage{scale}.logits": (side * side, manifest.vocab_size) for scale, side in enumerate(manifest.patch_nums)
        },
        **{f"residual.noise{i}": (manifest.z_channels,) for i in range(manifest.residual.noise_steps)},
        "tok.input": (3, manifest.image_size, manifest.image_size),
    }
    check_inputs(records, f"bundle {manifest.name!r}", shapes)
    yield from _generation(pipeline, records)
    yield from _tokenizer(pipeline, records)


def _generation(pipeline: Pipeline, records: Records) -> Iterator[RecordResult]:
    manifest, plan = pipeline.manifest, pipeline.manifest.plan
    sides, z, batch = manifest.patch_nums, manifest.z_channels, len(records["context"])
    last, tokens = len(sides) - 1, sides[-1] ** 2
    cfg_scale = guidance_of(records, len(sides))
    sampling = check_settings(manifest.sampling, Settings(cfg_scale=cfg_scale, top_k=1, smooth=False))
    draws = [records[f"residual.noise{i}"][: batch * tokens] for i in range(manifest.residual.noise_steps)]
    noise = np.stack([draw.reshape(batch, tokens, z) for draw in draws], 1)  # (B, N + 1, P * P, Z)

    def fill(name: str, buffer: Buffer) -> NDArray[Any]:
        if buffer.kind is BufferKind.INPUT:
            return np.ascontiguousarray(records[name])
        if buffer.kind is BufferKind.CONSTANT:
            return pipeline.bundle.constant(buffer.constant or "")
        if buffer.kind is BufferKind.SETTING:
            return setting_value(sampling, buffer)
        if buffer.purpose == Purpose.RESIDUAL:
            first = buffer.draw or 0
            return np.ascontiguousarray(noise[:, first : first + int(buffer.shape[1])])
        return np.full(buffer_shape(buffer, batch), 0.5, np.float32)  # the choice is the argmax: no number is drawn

    compared = {f"{kind}.{s}" for kind in ("logits", "indices", "f_hat", "next") for s in range(last + 1)}
    buffers = Buffers(plan, batch, fill, frozenset({"image", "residual", *compared}))
    for scale in execute(plan, pipeline.runner, buffers):
        stage = f"stage{scale}"
        yield compare(f"{stage}.logits", buffers[f"logits.{scale}"], records, LOGITS_TOLERANCE)
        yield compare(f"{stage}.indices", buffers[f"indices.{scale}"], records, EXACT)
        if scale < last:
            following = sides[scale + 1]
            seen = buffers[f"next.{scale + 1}"].transpose(0, 2, 1).reshape(batch, z, following, following)
            yield compare(f"{stage}.f_hat", buffers[f"f_hat.{scale}"], records, LATENT_TOLERANCE)
            yield compare(f"{stage}.next", seen, records, LATENT_TOLERANCE)
    yield compare("residual.timesteps", np.array(manifest.residual.timesteps), records, EXACT)
    conditional = {"residual.sample": records["residual.sample"][: batch * tokens]}
    yield compare("residual.sample", buffers["residual"].reshape(-1, z), conditional, LATENT_TOLERANCE)
    yield compare("image", buffers["image"], records, LATENT_TOLERANCE)


def _tokenizer(pipeline: Pipeline, records: Records) -> Iterator[RecordResult]:
    manifest = pipeline.manifest
    sides, side, z, batch = manifest.patch_nums, manifest.image_size, manifest.z_channels, len(records["tok.input"])
    latent, f_hat = (np.empty((batch, z, sides[-1], sides[-1]), np.float32) for _ in range(2))
    indices = np.empty((batch, sum(p * p for p in sides)), np.int64)
    found: dict[str, NDArray[Any]] = {"latent": latent, "f_hat": f_hat, "indices": indices}
    pipeline.runner.run("encoder", {"image": np.ascontiguousarray(records["tok.input"])}, found)
    yield compare("tok.latent", latent, records, LATENT_TOLERANCE)
    starts = np.cumsum([0, *(p * p for p in sides)])
    for scale in range(len(sides)):
        yield compare(f"tok.indices{scale}", indices[:, starts[scale] : starts[scale + 1]], records, EXACT)
    yield compare("tok.f_hat_discrete", f_hat, records, LATENT_TOLERANCE)
    for name, decoded in (("discrete", f_hat), ("continuous", latent)):
        image = np.empty((batch, 3, side, side), np.float32)
        pipeline.runner.run("decoder", {"f_hat": decoded}, {"image": image})
        yield compare(f"tok.decode_{name}", image * 2 - 1, records, LATENT_TOLERANCE)
