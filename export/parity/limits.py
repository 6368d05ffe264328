"""What a build is held to: limits on how near its graphs come to the reference, by precision.

In: the figures of export/parity/quality.py. Out: the breach that counts, if there is one, and figures in words. Nothing here
needs torch: cards are written on devices too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hart_edge.bundle.manifest import Precision, Quality
from hart_edge.errors import BuildError

MOST_PSNR = 1000.0  # dB, what the manifest allows


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


# What rounding explains, with room: see docs/parity.md for what the model that comes along reaches.
LIMITS = {
    Precision.FP32: Limits(0.999, 1e-4, 80.0),
    Precision.FP16: Limits(0.995, 2e-3, 40.0),
    Precision.INT8: Limits(0.95, 0.02, 40.0),
}


def limits_for(
    precision: Precision, min_top_1: float | None = None, max_kl: float | None = None, min_psnr: float | None = None
) -> Limits:
    """The limits of a precision, with those that are given in their place."""
    default = LIMITS[precision]
    return Limits(
        default.min_top_1 if min_top_1 is None else min_top_1,
        default.max_kl if max_kl is None else max_kl,
        default.min_psnr if min_psnr is None else min_psnr,
    )


@dataclass(frozen=True)
class Breach:
    """A graph that comes less near than it must, where, and which figures say so."""

    graph: str
    scale: int | None
    figures: str


def find_breach(quality: Quality, limits: Limits, patch_nums: Sequence[int], *, logits: bool) -> Breach | None:
    """The breach with the largest divergence, the decoder's last; None where every limit is kept.

    logits: whether those of the parity inputs mean something.
    """
    found = []
    for scale, (figures, side) in enumerate(zip(quality.scales, patch_nums, strict=True)):
        said = beyond(figures.top_1, figures.kl, quality.prompts * side**2, limits)
        if said and logits:
            found.append((figures.kl, Breach("transformer", scale, "; ".join(said))))
    if found:
        return max(found, key=lambda pair: pair[0])[1]
    if quality.decoder_psnr is not None and quality.decoder_psnr < limits.min_psnr:
        return Breach("decoder", None, f"PSNR {quality.decoder_psnr:.1f} dB, limit {limits.min_psnr:g} dB")
    return None


def beyond(top_1: float, kl: float, tokens: int, limits: Limits) -> list[str]:
    """Which figures of a scale are beyond the limits, in words.

    One token of a scale may always differ: the first scales have so few that the turn of a single tie would be beyond
    any limit.
    """
    said = []
    if top_1 < limits.min_top_1 and round((1 - top_1) * tokens) > 1:
        said.append(f"top-1 agreement {percent(top_1)}, limit {percent(limits.min_top_1)}")
    if kl > limits.max_kl:
        said.append(f"KL divergence {kl:.2e}, limit {limits.max_kl:g}")
    return said


def percent(share: float) -> str:
    return f"{100 * share:.4g} %"


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
