"""Self-correction: lessons with wrong codes in earlier scales, so that later scales learn to correct them.

In: codes of pictures, and this step's random numbers. Out: a Lesson whose inputs have some wrong codes in them, and
whose targets are the right codes for what is then left of the latent. Source: Infinity (Han et al. 2024, section 3.3),
which flips bits of its codes; ours are replaced by near ones.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hart_edge.reference.config import RESIDUAL_SCALE
from hart_edge.reference.quantizer import Quantizer, to_map, to_tokens
from hart_edge.training.order import StepPurpose, random_of
from hart_edge.training.recipe import check
from hart_edge.training.transformer.codes import Codes, Lesson, lesson_of


@dataclass(frozen=True)
class SelfCorrection:
    """rates: share of the codes that are wrong, scale by scale; scales beyond the list have none, as has the last.

    pictures: share of the pictures that have wrong codes at all. near: a wrong code is one of so many that are the
    nearest to the token after the right one.
    """

    rates: tuple[float, ...] = ()
    pictures: float = 0.5
    near: int = 16

    def __post_init__(self) -> None:
        check(self, "rates", "numbers from 0 to 1", lambda v: all(0 <= rate <= 1 for rate in v), "self_correction")
        check(self, "pictures", "0 to 1", lambda v: 0 <= v <= 1, "self_correction")
        check(self, "near", "at least 1", lambda v: v >= 1, "self_correction")


class Mistakes(NamedTuple):
    """Of the n codes before the last scale, scale after scale."""

    wrong: NDArray[np.bool_]  # (B, n): which are replaced
    which: NDArray[np.float64]  # (B, n) in [0, 1): by which of the near codes, the small numbers by the nearest

    def share(self, part: slice) -> Mistakes:
        return Mistakes(self.wrong[part], self.which[part])


def mistakes_of(
    config: SelfCorrection, patch_nums: tuple[int, ...], count: int, seed: int, step: int
) -> Mistakes | None:
    """The mistakes in a step's `count` pictures; None where there are none by the recipe."""
    rates = np.zeros(len(patch_nums) - 1)
    rates[: len(config.rates)] = config.rates[: len(rates)]
    if not rates.any() or config.pictures == 0:
        return None
    rate = rates.repeat([side * side for side in patch_nums[:-1]])  # (n,)
    random = random_of(seed, step, StepPurpose.CORRECTION)
    chosen = random.random(count) < config.pictures
    wrong = random.random((count, len(rate))) < rate
    return Mistakes(wrong & chosen[:, None], random.random((count, len(rate))))


@torch.no_grad()
def corrected_lesson(
    quantizer: Quantizer, codes: Codes, rows: NDArray[np.int64], mistakes: Mistakes, near: int
) -> Lesson:
    """lesson_of(), but with mistakes in it: a picture that has any is quantised anew behind each of them."""
    lesson = lesson_of(quantizer, codes, rows)
    some = np.flatnonzero(mistakes.wrong.any(1))
    if len(some) == 0:
        return lesson
    at = torch.from_numpy(some)
    scales = list(lesson.indices[at].split([side * side for side in quantizer.patch_nums], 1))
    rest = to_map(lesson.codes[at] + RESIDUAL_SCALE * lesson.residual[at], quantizer.final_side)
    latent = rest + sum(quantizer.expand(quantizer.codebook(chosen), scale) for scale, chosen in enumerate(scales[:-1]))
    wrong, which = (torch.from_numpy(each[some]) for each in mistakes)
    anew = _quantized(quantizer, latent, wrong, which, near)
    return Lesson(*(
        getattr(lesson, field.name).index_copy(0, at, getattr(anew, field.name)) for field in fields(Lesson)
    ))  # fmt: skip


def _quantized(quantizer: Quantizer, latent: Tensor, wrong: Tensor, which: Tensor, near: int) -> Lesson:
    """The lesson of latents (B, Z, P, P) whose codes at `wrong` (B, n) are replaced before they are added up."""
    f_hat, indices, inputs = torch.zeros_like(latent), [], []
    sizes = [side * side for side in quantizer.patch_nums[:-1]]
    for scale, (replace, by) in enumerate(zip(wrong.split(sizes, 1), which.split(sizes, 1), strict=True)):
        tokens = quantizer.reduce(latent - f_hat, scale)  # (B, p * p, Z)
        right = quantizer.nearest(tokens)
        indices.append(right)
        shown = right.clone()
        shown[replace] = near_codes(quantizer, tokens[replace], by[replace], near)
        f_hat = f_hat + quantizer.expand(quantizer.codebook(shown), scale)
        inputs.append(quantizer.reduce(f_hat, scale + 1))
    rest = to_tokens(latent - f_hat)
    indices.append(quantizer.nearest(rest))
    last = quantizer.codebook(indices[-1])
    return Lesson(torch.cat(indices, 1), torch.cat(inputs, 1), last, (rest - last) / RESIDUAL_SCALE)


def near_codes(quantizer: Quantizer, tokens: Tensor, which: Tensor, near: int) -> Tensor:
    """For each token (n, Z) one of the `near` codes that follow the nearest: (n,) int64.

    which: (n,) in [0, 1), where along their probabilities. These fall with the squared distance, exp(-(d / d_1)^2),
    d_1 that of the nearest of them.
    """
    codebook = quantizer.codebook.weight
    distance = torch.cdist(tokens, codebook).square()
    distance, code = distance.topk(min(near + 1, len(codebook)), largest=False)  # (n, near + 1), ascending
    distance, code = distance[:, 1:], code[:, 1:]
    probability = (-distance / distance[:, :1].clamp_min(1e-12)).softmax(-1).double()
    choice = (probability.cumsum(-1) <= which[:, None]).sum(-1).clamp_max(code.shape[1] - 1)
    return code.gather(1, choice[:, None])[:, 0]
