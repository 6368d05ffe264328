"""Pictures -> codes: what the transformer is trained on, computed once by the trained tokenizer and kept.

In: a tokenizer and pictures. Out: Codes, in .hart-edge/ beside the pictures under a key of all that they follow from.
Several processes share the work.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from hart_edge.data.pictures import CACHE
from hart_edge.evaluation.reconstruction import to_range
from hart_edge.reference.autoencoder import Autoencoder
from hart_edge.reference.config import RESIDUAL_SCALE
from hart_edge.reference.quantizer import Quantizer
from hart_edge.training.checkpoints import write_bytes
from hart_edge.training.errors import TrainingError
from hart_edge.training.transformer.teacher_forcing import teacher_inputs
from hart_edge.units import duration

log = logging.getLogger(__name__)

FORMAT = 1  # of the file, and of what encode() makes of a picture; raised whenever either changes
LARGEST_VOCABULARY = 2**16
BATCH = 8
LOG_SECONDS = 10.0  # between two lines of progress


@dataclass(frozen=True)
class Codes:
    """N pictures. indices: (N, sum of p_s^2) uint16, scale after scale; rest: (N, P * P, Z) float16, what is left of
    the latent before the last scale's codes are taken off.
    """

    indices: NDArray[np.uint16]
    rest: NDArray[np.float16]

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True)
class Lesson:
    """What pictures teach. indices: (B, sum of p_s^2) int64; inputs: (B, sum of p_s^2 for s >= 1, Z), what each later
    token is predicted from; codes, residual: (B, P * P, Z) of the last scale, residual over RESIDUAL_SCALE.
    """

    indices: Tensor
    inputs: Tensor
    codes: Tensor
    residual: Tensor


@torch.no_grad()
def lesson_of(quantizer: Quantizer, codes: Codes, rows: NDArray[np.int64]) -> Lesson:
    """The lesson of some pictures, by the arithmetic of the loop. quantizer: on the CPU, at the generator's scales."""
    indices = torch.from_numpy(codes.indices[rows].astype(np.int64))
    scales = list(indices.split([side * side for side in quantizer.patch_nums], 1))
    last = quantizer.codebook(scales[-1])
    rest = torch.from_numpy(codes.rest[rows]).float()
    return Lesson(indices, teacher_inputs(quantizer, scales), last, (rest - last) / RESIDUAL_SCALE)


def codes_of(
    accelerator: Accelerator,
    autoencoder: Autoencoder,
    quantizer: Quantizer,
    images: NDArray[np.uint8],
    folder: Path,
    *,
    mirrored: NDArray[np.int64] | None = None,
    log_seconds: float = LOG_SECONDS,
) -> Codes:
    """The codes of pictures (N, 16P, 16P, 3), or of the mirror images of those at the indices `mirrored`.

    folder: of the pictures, where the codes are kept; log_seconds: seconds between lines of progress. Raises
    TrainingError where the pictures are not of the last scale's size, or the tokenizer cannot be used.
    """
    side = 16 * quantizer.final_side
    if images.shape[1:] != (side, side, 3):
        height, width = images.shape[1:3]
        raise TrainingError(
            f"{folder}: expected pictures of {side} x {side} pixels, 16 times the last of patch_nums, found "
            f"{width} x {height}; change transformer.patch_nums and side together"
        )
    if (size := quantizer.codebook.num_embeddings) > LARGEST_VOCABULARY:
        raise TrainingError(
            f"tokenizer: expected at most {LARGEST_VOCABULARY} codes, found {size}; train a smaller one"
        )
    rows = np.arange(len(images)) if mirrored is None else mirrored
    file = folder / CACHE / f"codes-{_key(autoencoder, quantizer, images, mirrored)}.safetensors"
    found = _read(file, len(rows), quantizer)
    if accelerator.gather(torch.tensor([found is None], device=accelerator.device)).any():
        found = _encode(accelerator, autoencoder, quantizer, images, rows, mirrored is not None, log_seconds)
        if accelerator.is_main_process:
            _write(file, found)
    assert found is not None
    return found


def _key(
    autoencoder: Autoencoder, quantizer: Quantizer, images: NDArray[np.uint8], mirrored: NDArray[np.int64] | None
) -> str:
    digest = hashlib.sha256(f"{FORMAT} {quantizer.patch_nums} {quantizer.ratio} {images.shape}".encode())
    for module in (autoencoder.encoder, autoencoder.quant_conv, quantizer):
        digest.update(digest_of(module).encode())
    digest.update(np.ascontiguousarray(images).data)
    if mirrored is not None:
        digest.update(b"mirrored" + mirrored.tobytes())
    return digest.hexdigest()[:16]


def digest_of(module: nn.Module) -> str:
    """SHA-256 of a module's tensors and their names."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(file: Path, count: int, quantizer: Quantizer) -> Codes | None:
    try:
        tensors = safetensors.numpy.load_file(file)
        codes = Codes(tensors["indices"], tensors["rest"])
    except (OSError, SafetensorError, KeyError):
        return None
    tokens, last = sum(side * side for side in quantizer.patch_nums), quantizer.final_side**2
    whole = codes.indices.shape == (count, tokens) and codes.rest.shape[:2] == (count, last)
    return codes if whole else None


def _write(file: Path, codes: Codes) -> None:
    contents = safetensors.numpy.save({"indices": codes.indices, "rest": codes.rest})
    try:
        write_bytes(file, contents)
    except TrainingError as error:
        log.warning("%s, so the pictures are encoded at every start", error.__cause__)


def _encode(
    accelerator: Accelerator,
    autoencoder: Autoencoder,
    quantizer: Quantizer,
    images: NDArray[np.uint8],
    rows: NDArray[np.int64],
    mirror: bool,
    log_seconds: float,
) -> Codes:
    """Every process encodes its share of the rows, and all get the whole."""
    processes = accelerator.num_processes
    shares = np.resize(rows, (-(-len(rows) // processes), processes))  # the last ones repeat the first
    mine = shares[:, accelerator.process_index]
    indices, rests = [], []
    began = said = time.monotonic()
    for first in range(0, len(mine), BATCH):
        pictures = images[mine[first : first + BATCH]]
        chosen, rest = _encode_batch(autoencoder, quantizer, pictures[:, :, ::-1] if mirror else pictures)
        indices.append(chosen)
        rests.append(rest)
        now = time.monotonic()
        if now - said > log_seconds:
            said, done = now, first + len(pictures)
            left = duration((now - began) / done * (len(mine) - done))
            log.info("%d of %d pictures encoded, %s left", done * processes, len(rows), left)
    whole = [accelerator.gather(torch.cat(part).to(accelerator.device)).cpu() for part in (indices, rests)]
    # Gathered process by process; back to the order of the rows.
    ordered = [part.unflatten(0, (processes, -1)).transpose(0, 1).flatten(0, 1)[: len(rows)] for part in whole]
    return Codes(ordered[0].numpy().astype(np.uint16), ordered[1].numpy())


@torch.no_grad()
def _encode_batch(autoencoder: Autoencoder, quantizer: Quantizer, pictures: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """(B, sum of p_s^2) int32 and (B, P * P, Z) float16"""
    device = autoencoder.quant_conv.weight.device
    latent = autoencoder.encode(to_range(np.ascontiguousarray(pictures)).to(device)).float().cpu()
    indices, _, rest = quantizer.encode(latent, phi_at_last=False)
    if not torch.isfinite(stored := rest.half()).all():
        raise TrainingError(
            f"tokenizer: expected latents within float16, found one of {float(rest.abs().max()):g}; train it further"
        )
    return torch.cat(indices, 1).int(), stored
