"""The numbers of INT8: scales and zero points of weights and activations, and the integers of a weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hart_edge.calib.calibrate.ranges import with_zero
from hart_edge.calib.rewrite.fp16 import FP16_SMALLEST

MOST_PAIR = 128  # the largest sum of two neighbouring weights of one sign: 255 * 128 is below 2^15


def quantize_weight(
    weight: NDArray[np.float32], axis: int, *, paired: bool = False, fp16: bool = False
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric INT8 per slice along an axis: values in [-127, 127], and one scale per slice.

    paired: for products with UINT8. x86 without VNNI (pmaddubsw) adds two neighbouring products in 16 bits and
    saturates, so two neighbours of one sign come to at most MOST_PAIR. fp16: scales are numbers of FP16.
    """
    slices = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    scale = (np.abs(slices).max(axis=1) / 127).astype(np.float32)
    if paired:  # one less than MOST_PAIR, because rounding may add 0.5 to each of the two
        in_order = weight.ndim == 2  # convolution kernels reorder their weights, so any two may become neighbours
        scale = np.maximum(scale, _largest_pair(slices, in_order) / (MOST_PAIR - 1)).astype(np.float32)
    scale[scale == 0] = 1  # a slice of zeros
    if fp16:
        scale = nearest_fp16(scale)
    shape = [1] * weight.ndim
    shape[axis] = -1
    return np.round(weight / scale.reshape(shape)).clip(-127, 127).astype(np.int8), scale


def _largest_pair(slices: NDArray[np.float32], in_order: bool) -> NDArray[np.float32]:
    """Per row, the largest sum of two values of one sign: of values 2k and 2k + 1 if in_order, else of any two."""
    found = []
    for values in (np.maximum(slices, 0), np.maximum(-slices, 0)):
        if in_order:
            found.append(np.add.reduceat(values, np.arange(0, values.shape[1], 2), axis=1).max(axis=1))
        else:
            found.append(np.partition(values, -2, axis=1)[:, -2:].sum(axis=1))
    largest: NDArray[np.float32] = np.maximum(*found)
    return largest


def activation_parameters(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point with which UINT8 represents [low, high], and zero exactly."""
    low, high = with_zero(low, high)
    scale = (high - low) / 255 or 1.0  # for a tensor that was always zero
    return np.float32(scale), np.uint8(np.clip(round(-low / scale), 0, 255))


def nearest_fp16(scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest scales that are normal numbers of FP16."""
    return np.maximum(scale, np.float32(FP16_SMALLEST)).astype(np.float16).astype(np.float32)


def symmetric_parameters(low: float, high: float) -> tuple[np.float32, np.int8]:
    """Scale, exact in FP16, and zero point with which INT8 represents [low, high], with zero in the middle."""
    scale = np.array(max(abs(low), abs(high)) / 127 or 1.0, np.float32)
    return np.float32(nearest_fp16(scale)), np.int8(0)
