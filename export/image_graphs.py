"""From the latent to a picture, and back: here latents become an image.

In: the untouched reference model. Out: GraphModule objects; the symbols of their shapes are those of graphs.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hart_edge.export.graph_module import GraphModule, spec
from hart_edge.reference.hart import HART


class DecoderGraph(GraphModule):
    """f_hat -> picture. `finite` is False for an image that must not be shown."""

    name = "decoder"

    def __init__(self, model: HART) -> None:
        super().__init__()
        z, final, side = model.tokenizer_config.z_channels, model.patch_nums[-1], model.image_size
        self.post_quant_conv, self.decoder = model.autoencoder.post_quant_conv, model.autoencoder.decoder
        self.inputs = (spec("f_hat", "B", z, final, final),)
        self.outputs = (
            spec("image", "B", 3, side, side),
            spec("pixels", "B", side, side, 3, dtype="uint8"),
            spec("finite", "B", dtype="bool"),
        )

    def forward(self, f_hat: Tensor) -> tuple[Tensor, ...]:
        decoded = self.decoder(self.post_quant_conv(f_hat))
        finite = (decoded - decoded == 0).float().flatten(1).amin(1) > 0  # NaN - NaN and inf - inf are not 0
        image = (decoded.clamp(-1, 1) + 1) / 2
        pixels = (image * 255 + 0.5).floor().permute(0, 2, 3, 1).to(torch.uint8)  # TensorRT has uint8 only at the end
        return image, pixels, finite


class EncoderGraph(GraphModule):
    """Picture -> latent and codes, for reconstruction: decode `latent` (continuous) or `f_hat` (discrete)."""

    name = "encoder"

    def __init__(self, model: HART) -> None:
        super().__init__()
        z, final, side = model.tokenizer_config.z_channels, model.patch_nums[-1], model.image_size
        self.quant_conv, self.encoder = model.autoencoder.quant_conv, model.autoencoder.encoder
        self.quantizer = model.quantizer
        codes = sum(p * p for p in model.patch_nums)
        self.inputs = (spec("image", "B", 3, side, side),)
        self.outputs = (
            spec("latent", "B", z, final, final),
            spec("f_hat", "B", z, final, final),
            spec("indices", "B", codes, dtype="int64"),  # of all scales, coarse to fine
        )

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        latent = self.quant_conv(self.encoder(image))
        indices, f_hat, _ = self.quantizer.encode(latent, phi_at_last=True)
        return latent, f_hat, torch.cat(indices, 1)
