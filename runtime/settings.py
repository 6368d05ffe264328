"""The caller's sampling settings, checked against a bundle.

In: what the user passed, None meaning the bundle's own. Out: a Settings that the pipeline turns into buffers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hart_edge.bundle.manifest import MOST_GUIDANCE, Sampling
from hart_edge.bundle.plan import Buffer, Setting
from hart_edge.errors import InputError
from hart_edge.runtime.random import check_seed


@dataclass(frozen=True)
class Settings:
    """Guidance and token choice. top_k None means the bundle's table, one entry per scale."""

    cfg_scale: float
    top_k: int | None
    top_p: float
    smooth: bool

    def value(self, buffer: Buffer, sampling: Sampling) -> NDArray[Any]:
        """The array of a buffer of kind setting: shape (1,)."""
        scale = buffer.scale or 0
        values = {
            Setting.CFG_SCALE: self.cfg_scale,
            Setting.TOP_K: self.top_k or sampling.top_k[scale],
            Setting.TOP_P: self.top_p,
            Setting.SMOOTH: self.smooth,
            Setting.GUIDANCE_RATIO: sampling.guidance_ratio[scale],
            Setting.TEMPERATURE: sampling.temperature[scale],
        }
        assert buffer.setting is not None  # the manifest's reader has checked it
        return np.array([values[buffer.setting]], buffer.dtype.value)


def check_settings(sampling: Sampling, cfg_scale: object, top_k: object, top_p: object, smooth: object) -> Settings:
    """Settings from what the user passed; None takes the bundle's default. Raises InputError."""
    guidance = sampling.cfg_scale if cfg_scale is None else _number("cfg_scale", cfg_scale)
    if not 0 <= guidance <= MOST_GUIDANCE:
        raise InputError(
            f"cfg_scale: expected 0 to {MOST_GUIDANCE:g}, found {cfg_scale!r}; 0 turns guidance off, "
            f"this bundle's default is {sampling.cfg_scale:g}"
        )
    candidates = None if top_k is None else _top_k(top_k, max(sampling.top_k))
    share = sampling.top_p if top_p is None else _number("top_p", top_p)
    if not 0 < share <= 1:
        raise InputError(f"top_p: expected above 0 and at most 1, found {top_p!r}; 1 keeps every candidate")
    if smooth is not None and not isinstance(smooth, bool | np.bool_):
        raise InputError(f"smooth: expected True, False or None, found {smooth!r}")
    return Settings(
        guidance,
        candidates,
        share,
        sampling.smooth if smooth is None else bool(smooth),
    )


def check_seeds(seed: object, count: int) -> list[int]:
    """One seed per image: an integer serves all of them, a list must have one for each."""
    if isinstance(seed, Sequence) and not isinstance(seed, str | bytes):
        if len(seed) != count:
            raise InputError(f"seed: expected one seed for each of {count} prompts, found {len(seed)}")
        return [check_seed(one) for one in seed]
    return [check_seed(seed)] * count


def _top_k(value: object, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise InputError(f"top_k: expected an integer from 1 to {most}, found {value!r}")
    if not 1 <= value <= most:
        raise InputError(f"top_k: expected 1 to {most}, found {value!r}; 1 always takes the likeliest code")
    return int(value)


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputError(f"{name}: expected a number, found {value!r}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond 1e308
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{name}: expected a finite number, found {value!r}")
    return number
