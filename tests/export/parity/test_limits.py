"""The quality limits of a build: breaches, default values, and figures as text."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from hart_edge.bundle.manifest import Precision, Quality, ScaleQuality
from hart_edge.bundle.quality import LIMITS, Limits, in_words, limits_for
from hart_edge.errors import BuildError
from hart_edge.export.parity.limits import Breach, find_breach

SIDES = (1, 2, 5)  # with 10 prompts: 10, 40 and 250 tokens
GOOD = ScaleQuality(0.9999, 0.5, 0.98, 0.004, 0.9, 0.05)
LIMIT = Limits(0.95, 0.02, 40.0)


def quality(*changes: tuple[int, str, float], psnr: float | None = 55.0) -> Quality:
    """GOOD at every scale, but for (scale, figure, value)."""
    scales = [GOOD] * len(SIDES)
    for scale, figure, value in changes:
        scales[scale] = replace(scales[scale], **{figure: value})
    return Quality(10, tuple(scales), psnr)


def breach(found: Quality, *, logits: bool = True) -> Breach | None:
    return find_breach(found, LIMIT, SIDES, logits=logits)


def test_default_limits() -> None:
    assert LIMITS[Precision.FP16].min_top_1 == 0.995 and LIMITS[Precision.FP16].min_psnr == 40
    assert LIMITS[Precision.INT8] == Limits(min_top_1=0.95, max_kl=0.02, min_psnr=40.0)
    for one, other in ((Precision.FP32, Precision.FP16), (Precision.FP16, Precision.INT8)):
        assert LIMITS[one].min_top_1 > LIMITS[other].min_top_1 and LIMITS[one].max_kl < LIMITS[other].max_kl


def test_figures_within_every_limit_are_no_breach() -> None:
    assert breach(quality()) is None
    assert breach(quality((2, "top_1", 0.95), (2, "kl", 0.02), psnr=40.0)) is None
    assert breach(quality(psnr=None)) is None  # None: no pixel differs
    assert breach(quality((2, "guided_top_1", 0.1), (2, "guided_kl", 9.0), (2, "cosine", 0.1))) is None  # only shown


def test_a_breach_names_scale_figure_and_limit() -> None:
    assert breach(quality((1, "top_1", 0.9))) == Breach("transformer", 1, "top-1 agreement 90 %, limit 95 %")
    assert breach(quality((0, "kl", 0.0312))) == Breach("transformer", 0, "KL divergence 3.12e-02, limit 0.02")
    both = breach(quality((1, "top_1", 0.9), (2, "top_1", 0.9124), (2, "kl", 0.021)))
    assert both == Breach("transformer", 2, "top-1 agreement 91.24 %, limit 95 %; KL divergence 2.10e-02, limit 0.02")
    assert breach(quality(psnr=39.96)) == Breach("decoder", None, "PSNR 40.0 dB, limit 40 dB")


def test_one_token_of_a_scale_may_differ() -> None:
    assert breach(quality((0, "top_1", 0.9))) is None  # 9 of 10
    assert breach(quality((0, "top_1", 0.8))) == Breach("transformer", 0, "top-1 agreement 80 %, limit 95 %")
    diverging = breach(quality((0, "top_1", 0.9), (0, "kl", 0.5)))
    assert diverging == Breach("transformer", 0, "KL divergence 5.00e-01, limit 0.02")


def test_logits_of_random_weights_are_not_judged() -> None:
    poor = quality((1, "top_1", 0.1), (1, "kl", 3.0))
    assert breach(poor, logits=False) is None
    assert breach(replace(poor, decoder_psnr=20.0), logits=False) == Breach(
        "decoder", None, "PSNR 20.0 dB, limit 40 dB"
    )


def test_single_limits_can_be_moved() -> None:
    assert limits_for(Precision.INT8) == LIMITS[Precision.INT8]
    assert limits_for(Precision.INT8, max_kl=0.5) == Limits(0.95, 0.5, 40.0)
    assert limits_for(Precision.FP16, 0.0, 0.0, 0.0) == Limits(0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((1.01, 0.1, 40.0), "min_top1: expected 0 to 1, found 1.01"),
        ((-0.1, 0.1, 40.0), "min_top1: expected 0 to 1, found -0.1"),
        ((0.9, math.nan, 40.0), "max_kl: expected 0 to inf, found nan"),
        ((0.9, 0.1, 1001.0), "min_psnr: expected 0 to 1000, found 1001.0"),
    ],
)
def test_impossible_limits_are_refused(given: tuple[float, float, float], message: str) -> None:
    with pytest.raises(BuildError, match=f"^{message}$"):
        Limits(*given)


def test_figures_in_words() -> None:
    found = quality((1, "top_1", 0.925), (2, "kl", 0.0123), psnr=None)
    assert in_words(found) == (
        "top-1 92.5 % (scale 1) or more, KL 1.2e-02 (scale 2) or less, decoder no pixel differs, on 10 prompts"
    )
    assert ", decoder 55.0 dB, on" in in_words(quality())
