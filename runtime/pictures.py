"""Pictures at both ends of the graphs: any picture -> the encoder's square, the decoder's pixels -> a picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hart_edge.errors import GenerationError


def to_square(image: Image.Image, side: int) -> Image.Image:
    """The middle square of a picture as RGB of side x side pixels, on white where it is transparent."""
    least = min(image.size)
    left, top = ((extent - least) // 2 for extent in image.size)
    square = image.convert("RGBA").crop((left, top, left + least, top + least))  # resize(box=) would see beyond it
    square = square.resize((side, side), Image.Resampling.LANCZOS)
    return Image.alpha_composite(Image.new("RGBA", square.size, "white"), square).convert("RGB")


def to_image(pixels: NDArray[np.uint8], finite: NDArray[np.bool_]) -> Image.Image:
    """pixels: (1, H, W, 3) uint8; finite: (1,) bool. Raises GenerationError where the decoder saw NaN or infinity."""
    if not finite[0]:
        raise GenerationError(
            "the decoder produced NaN or infinity, so there is no picture; try another seed or a lower cfg_scale, "
            "and if every prompt fails rebuild the bundle at fp32 and report it"
        )
    return Image.fromarray(pixels[0])
