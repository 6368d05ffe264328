"""How well pictures come back: PSNR and SSIM for the continuous and the discrete path, and codes in use.

PSNR and SSIM are torchmetrics', taken of 8-bit pictures, as a viewer has them: a figure a picture, then the mean.

    python -m hart_edge.evaluation.reconstruction TOKENIZER DATA/validation
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from hart_edge.errors import HartEdgeError
from hart_edge.reference.autoencoder import Autoencoder
from hart_edge.reference.quantizer import Quantizer

BATCH = 8


@dataclass(frozen=True)
class PathFigures:
    """One path's figures: mean PSNR in dB, mean SSIM."""

    psnr: float
    ssim: float


@dataclass(frozen=True)
class Reconstruction:
    continuous: PathFigures
    discrete: PathFigures
    codes_used: int
    codes: int
    pictures: int

    def figures(self) -> dict[str, float]:
        return {
            "continuous_psnr": self.continuous.psnr,
            "continuous_ssim": self.continuous.ssim,
            "discrete_psnr": self.discrete.psnr,
            "discrete_ssim": self.discrete.ssim,
            "codes_used": self.codes_used / self.codes,
        }


def spread(count: int, wanted: int) -> NDArray[np.int64]:
    """Up to `wanted` of the indices 0 to count - 1, evenly spaced."""
    return np.linspace(0, count - 1, min(wanted, count)).round().astype(np.int64)


def to_range(images: NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1]"""
    return torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_bytes(images: Tensor) -> Tensor:
    """(B, 3, H, W) in about [-1, 1] -> (B, 3, H, W) uint8"""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def counts_of(indices: list[Tensor], codes: int) -> Tensor:
    """How often each code was chosen, over all scales: (V,) float32."""
    return torch.bincount(torch.cat([each.flatten() for each in indices]), minlength=codes).float()


@torch.no_grad()
def both_paths(
    autoencoder: Autoencoder, quantizer: Quantizer, images: NDArray[np.uint8]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Batches of (original, continuous, discrete) as (B, 3, H, W) uint8, and how often each code was chosen (V,)."""
    device = next(autoencoder.parameters()).device
    for first in range(0, len(images), BATCH):
        original = to_range(images[first : first + BATCH])
        latent = autoencoder.encode(original.to(device))
        indices, f_hat, _ = quantizer.encode(latent, phi_at_last=True)
        counts = counts_of(indices, quantizer.codebook.num_embeddings)
        continuous, discrete = (to_bytes(autoencoder.decode(each)).cpu() for each in (latent, f_hat))
        yield to_bytes(original), continuous, discrete, counts.cpu()


def measure(
    autoencoder: Autoencoder,
    quantizer: Quantizer,
    images: NDArray[np.uint8],
    see: Callable[[Tensor, Tensor], object] = lambda continuous, discrete: None,
) -> Reconstruction:
    """images: (N, 16P, 16P, 3) uint8, at least one. Autoencoder and quantizer in eval mode.

    see: called with the pictures of every batch, (B, 3, 16P, 16P) uint8 by either path.
    """
    results: dict[str, list[tuple[float, float]]] = {"continuous": [], "discrete": []}
    counts = torch.zeros(quantizer.codebook.num_embeddings)
    for original, continuous, discrete, chosen in both_paths(autoencoder, quantizer, images):
        see(continuous, discrete)
        counts += chosen
        for name, found in (("continuous", continuous), ("discrete", discrete)):
            results[name] += zip(*psnr_and_ssim(found, original), strict=True)
    means = {name: PathFigures(*torch.tensor(values).mean(0).tolist()) for name, values in results.items()}
    used = int((counts > 0).sum())
    return Reconstruction(means["continuous"], means["discrete"], used, len(counts), len(images))


def psnr_and_ssim(found: Tensor, original: Tensor) -> tuple[list[float], list[float]]:
    """found, original: (B, 3, H, W) uint8 -> PSNR in dB and SSIM of each picture. Equal pictures count as 100 dB."""
    a, b = found.float() / 255, original.float() / 255
    psnr = peak_signal_noise_ratio(a, b, data_range=1.0, dim=(1, 2, 3), reduction="none").clamp(max=100.0)
    ssim = structural_similarity_index_measure(a, b, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)  # no map of it was asked for (return_full_image)
    return psnr.tolist(), ssim.tolist()


def main(arguments: list[str] | None = None) -> int:
    from hart_edge.data.pictures import read_pictures
    from hart_edge.reference.checkpoint import open_tokenizer

    parser = argparse.ArgumentParser(
        prog="python -m hart_edge.evaluation.reconstruction", description="How well a tokenizer gives pictures back."
    )
    parser.add_argument("tokenizer", metavar="TOKENIZER", type=Path, help="tokenizer/ folder in the published layout")
    parser.add_argument("pictures", metavar="DIR", type=Path, help="folder of pictures with captions")
    parser.add_argument("--threads", type=int, metavar="N", help="torch's threads (default: one a core)")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    try:
        autoencoder, quantizer = open_tokenizer(options.tokenizer)
        pictures = read_pictures(options.pictures, 16 * quantizer.final_side)
    except HartEdgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    found = measure(autoencoder, quantizer, pictures.images)
    print(f"{found.pictures} pictures of {options.pictures}, {found.codes_used} of {found.codes} codes in use")
    for name, path in (("continuous", found.continuous), ("discrete", found.discrete)):
        print(f"{name:10}  PSNR {path.psnr:.2f} dB  SSIM {path.ssim:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
