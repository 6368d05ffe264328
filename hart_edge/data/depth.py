"""Pictures of other depths -> 8 bits: 16 bits a pixel, 32-bit integers and floating point.

In: a picture as Pillow opens it. Out: one of a mode that convert() reads rightly. Pillow itself would make white of 16
bits and black of numbers from 0 to 1. What the numbers mean is found in their range, and refused where it says nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

EXPECTED = "expected floating-point numbers from 0 to 1 or from 0 to 255"
EXPECTED_INTEGERS = "expected integers from 0 to 255 or from 0 to 65,535"


def eight_bits(picture: Image.Image, file_format: str | None) -> Image.Image:
    """The picture with 8 bits a channel; one that has them already is returned as it is.

    file_format: as Pillow names it. Raises ValueError for numbers whose range says nothing of what is black and white.
    """
    if picture.mode == "F":
        grey = from_floats(np.asarray(picture))
    elif picture.mode == "I" and file_format == "TIFF":  # 32 bits; elsewhere this is how Pillow holds 16
        grey = from_integers(np.asarray(picture))
    elif picture.mode.startswith("I"):
        grey = (np.asarray(picture) >> 8).clip(0, 255).astype(np.uint8)
    else:
        return picture
    clear = picture.info.get("transparency")
    if isinstance(clear, int):  # the one value that is transparent
        alpha = np.where(np.asarray(picture) == clear, 0, 255).astype(np.uint8)
        return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))
    return Image.fromarray(grey)


def from_floats(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """0 to 1, or 0 to 255 where a value is above 1 -> 0 to 255"""
    low, high = float(values.min()), float(values.max())  # nan where any value is
    if not (low >= 0 and high <= 255):
        raise ValueError(f"{EXPECTED}, found {low:g} to {high:g}; save it with 8 bits a channel")
    return np.rint(values * 255 if high <= 1 else values).astype(np.uint8)


def from_integers(values: NDArray[np.int32]) -> NDArray[np.uint8]:
    """0 to 255, or 0 to 65,535 where a value is above 255 -> 0 to 255"""
    low, high = int(values.min()), int(values.max())
    if not (low >= 0 and high < 2**16):
        raise ValueError(f"{EXPECTED_INTEGERS}, found {low:,} to {high:,}; save it with 8 bits a channel")
    return (values >> 8 if high > 255 else values).astype(np.uint8)
