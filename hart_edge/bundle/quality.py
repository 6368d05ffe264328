"""How near the graphs of a bundle come to the reference: the figures of its manifest, their limits, both in words.

export/parity/ measures the figures and compares them with the limits; the card and `hart-edge info` show them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from hart_edge.bundle.fields import Length, integer, number
from hart_edge.bundle.plan import Precision
from hart_edge.errors import BuildError

MOST_PSNR = 1000.0  # dB

Share = Annotated[float, number(0, 1)]
Nats = Annotated[float, number(0, 1e30)]


@dataclass(frozen=True)
class ScaleQuality:
    """How near a scale's logits come to the reference's: unguided, and with the guidance of the bundle's defaults."""

    cosine: Annotated[float, number(-1, 1)]
    largest_error: Annotated[float, number(0, 1e30)]
    top_1: Share
    kl: Nats
    guided_top_1: Share
    guided_kl: Nats


@dataclass(frozen=True)
class Quality:
    """Of the graphs, on prompts that calibration has not seen. decoder_psnr: dB, of the worst picture;
    None where nothing differs."""

    prompts: Annotated[int, integer(1, 2**20)]
    scales: Annotated[tuple[ScaleQuality, ...], Length(1, 64)]
    decoder_psnr: Annotated[float, number(0, MOST_PSNR)] | None


@dataclass(frozen=True)
class Limits:
    """min_top_1: share of tokens whose likeliest code is the reference's; max_kl: mean nats; min_psnr: dB.

    The first two hold at every scale, of the conditional logits before guidance (docs/parity.md says why).
    """

    min_top_1: float
    max_kl: float
    min_psnr: float

    def __post_init__(self) -> None:
        for name, value, most in (
            ("min_top1", self.min_top_1, 1.0),
            ("max_kl", self.max_kl, float("inf")),
            ("min_psnr", self.min_psnr, MOST_PSNR),
        ):
            if not 0 <= value <= most:  # false for NaN as well
                raise BuildError(f"{name}: expected 0 to {most:g}, found {value!r}")


# What rounding explains, with a margin; docs/parity.md says how near the shipped model comes.
LIMITS = {
    Precision.FP32: Limits(0.999, 1e-4, 80.0),
    Precision.FP16: Limits(0.995, 2e-3, 40.0),
    Precision.INT8: Limits(0.95, 0.02, 40.0),
}


def limits_for(
    precision: Precision, min_top_1: float | None = None, max_kl: float | None = None, min_psnr: float | None = None
) -> Limits:
    """The limits of a precision, except where one is given."""
    default = LIMITS[precision]
    return Limits(
        default.min_top_1 if min_top_1 is None else min_top_1,
        default.max_kl if max_kl is None else max_kl,
        default.min_psnr if min_psnr is None else min_psnr,
    )


def percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def psnr(mean_square: float) -> float | None:
    """dB of an error of pictures in [0, 1]; None where nothing differs."""
    return None if mean_square == 0 else -10 * math.log10(mean_square)


def decibels(psnr: float | None) -> str:
    return "no pixel differs" if psnr is None else f"{psnr:.1f} dB"


def in_words(quality: Quality) -> str:
    """One line: the worst scales and the decoder."""
    scales = list(enumerate(quality.scales))
    least, differs = min(scales, key=lambda pair: pair[1].top_1)
    most, diverges = max(scales, key=lambda pair: pair[1].kl)
    return (
        f"top-1 {percent(differs.top_1)} (scale {least}) or more, KL {diverges.kl:.1e} (scale {most}) or less, "
        f"decoder {decibels(quality.decoder_psnr)}, on {quality.prompts} prompts"
    )
