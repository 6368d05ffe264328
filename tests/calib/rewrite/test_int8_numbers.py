"""INT8 numbers: how far quantized weights are from the weights, and which activations can be represented."""

from __future__ import annotations

import numpy as np
import pytest

from hart_edge.calib.rewrite.fp16 import FP16_SMALLEST
from hart_edge.calib.rewrite.int8_numbers import activation_parameters, quantize_weight, symmetric_parameters


@pytest.mark.parametrize("axis", [0, 1])
def test_a_weight_is_rounded_by_at_most_half_a_step(axis: int) -> None:
    value = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    value *= np.logspace(-6, 6, value.shape[axis]).reshape((-1, 1) if axis == 0 else (1, -1)).astype(np.float32)
    quantized, scale = quantize_weight(value, axis)
    assert quantized.dtype == np.int8 and scale.shape == (value.shape[axis],) and scale.dtype == np.float32
    assert np.abs(quantized.astype(int)).max(axis=1 - axis).tolist() == [127] * len(scale)  # all of the range
    steps = np.expand_dims(scale, 1 - axis)
    assert (np.abs(quantized * steps - value) <= steps * 0.5001).all()


@pytest.mark.parametrize(("shape", "axis"), [((401, 50), 1), ((50, 400), 0), ((48, 8, 3, 3), 0)])
def test_paired_neighbours_fit_into_16_bits_with_uint8(shape: tuple[int, ...], axis: int) -> None:
    """Neighbours along the contraction of a matrix, any two of a convolution; with the finest scale that allows it."""
    value = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    quantized, scale = quantize_weight(value, axis, paired=True)
    slices = np.moveaxis(quantized, axis, 0).reshape(shape[axis], -1).astype(int)
    slices = np.pad(slices, ((0, 0), (0, slices.shape[1] % 2)))
    if len(shape) == 4:
        slices = np.sort(slices, axis=1)  # neighbours are then the largest two, and the smallest two
    pairs = slices[:, 0::2] + slices[:, 1::2]
    same_sign = slices[:, 0::2] * slices[:, 1::2] > 0
    largest = np.where(same_sign, np.abs(pairs), np.abs(slices).reshape(*pairs.shape, 2).max(2)).max(1)
    assert largest.max() <= 128 and largest.min() >= 125
    shaped = scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    assert (np.abs(quantized * shaped - value) <= shaped * 0.5001).all()
    assert (scale / quantize_weight(value, axis)[1]).max() <= 2.0


def test_zero_channels_stay_zero() -> None:
    value = np.ones((3, 4, 1, 1), np.float32)
    value[1] = 0
    quantized, scale = quantize_weight(value, 0)
    assert scale[1] == 1 and not quantized[1].any()
    assert np.isfinite(scale).all() and (scale > 0).all()


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 3.0), (0.0, 5.0), (-7.0, 0.0), (2.0, 5.0), (-6.0, -1.0), (-1e-3, 1e4), (0.0, 0.0)]
)
def test_activations_represent_zero_exactly(low: float, high: float) -> None:
    scale, zero = activation_parameters(low, high)
    assert scale.dtype == np.float32 and zero.dtype == np.uint8 and scale > 0
    smallest, largest = (0 - int(zero)) * scale, (255 - int(zero)) * scale
    assert smallest <= 0 <= largest
    assert smallest - scale <= min(low, 0) and max(high, 0) <= largest + scale  # the range, within one step
    if (low, high) != (0.0, 0.0):
        assert largest - smallest == pytest.approx(max(high, 0) - min(low, 0), rel=1e-5)


def test_symmetric_activations_cover_both_ends() -> None:
    for low, high in ((-1.0, 3.0), (-5.0, 2.0), (0.0, 1e-9), (0.0, 0.0)):
        scale, zero = symmetric_parameters(low, high)
        assert zero == 0 and zero.dtype == np.int8 and scale.dtype == np.float32
        assert np.float32(np.float16(scale)) == scale >= FP16_SMALLEST  # exact in FP16
        assert 127 * scale >= 0.999 * max(abs(low), abs(high))


def test_scales_of_weights_are_numbers_of_fp16() -> None:
    value = np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32)
    value *= np.logspace(-8, 2, 6, dtype=np.float32)
    quantized, scale = quantize_weight(value, 1, fp16=True)
    assert (scale.astype(np.float16).astype(np.float32) == scale).all() and (scale >= FP16_SMALLEST).all()
    assert np.abs(quantized.astype(int)).max() == 127
    assert (np.abs(quantized * scale - value) <= scale * 0.51 + np.abs(value) * 2**-10).all()
