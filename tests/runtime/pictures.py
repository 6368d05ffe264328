"""Prompts that the shipped model knows, and pictures as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PROMPTS = ("a grinning face", "a red heart", "woman astronaut: dark skin tone", "a green apple")


def array(image: Any) -> NDArray[np.int64]:
    assert isinstance(image, Image.Image)
    return np.asarray(image).astype(np.int64)
