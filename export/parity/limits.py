"""What a build has to reach: the figures of export/parity/quality.py against the limits of bundle/quality.py.

In: figures and limits. Out: the breach that counts, if there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hart_edge.bundle.quality import Limits, Quality, percent


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
