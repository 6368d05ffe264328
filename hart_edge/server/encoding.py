"""Picture files in the formats that clients ask for; PNG carries how the picture was drawn."""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import StrEnum

from PIL import Image

from hart_edge.runtime.picture_metadata import PictureMetadata, save_png


class Format(StrEnum):
    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def media_type(self) -> str:
        return f"image/{self}"


@dataclass(frozen=True)
class Encoding:
    """quality: 0 to 100, of JPEG and WebP, where 100 is WebP without loss; PNG has none."""

    format: Format = Format.PNG
    quality: int = 100

    def file_of(self, image: Image.Image, metadata: PictureMetadata | None = None) -> bytes:
        stream = io.BytesIO()
        if self.format is Format.PNG:
            save_png(image, stream, metadata)
        elif self.format is Format.JPEG:
            image.save(stream, "JPEG", quality=self.quality, subsampling=0 if self.quality >= 90 else 2)
        else:
            image.save(stream, "WEBP", quality=self.quality, lossless=self.quality == 100)
        return stream.getvalue()
