"""The hybrid tokenizer while it is trained: its recipe, and one step's reconstruction and losses.

In: pictures in [-1, 1] and who of them takes the discrete path. Out: the terms of the loss. Source: paper section 3.1
(alternating training).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hart_edge.reference.autoencoder import Autoencoder
from hart_edge.reference.checkpoint import load_tokenizer, published_tokenizer
from hart_edge.reference.config import TokenizerConfig, read_tokenizer_config
from hart_edge.reference.quantizer import Quantizer
from hart_edge.reference.weight_files import read_json
from hart_edge.training.checkpoints import publish
from hart_edge.training.recipe import Optimisation, check
from hart_edge.training.tokenizer.codebook import CodebookCare
from hart_edge.training.tokenizer.critic import Adversarial, Critic, adversarial_loss
from hart_edge.training.tokenizer.losses import Losses, reconstruction_terms, weighted
from hart_edge.training.tokenizer.quantize import quantize, straight_through


@dataclass(frozen=True)
class TokenizerRecipe:
    """A tokenizer's training. side: of the pictures in pixels. alternating: how probable the discrete path is.

    early_side: of the pictures before codes are used (codebook.start). Convolutions carry over from one resolution to
    another, and a step at half the side costs a quarter. None: the full side from the first step.
    """

    optimisation: Optimisation
    tokenizer: TokenizerConfig = field(
        default_factory=lambda: TokenizerConfig(
            (1, 2, 3, 4, 5, 6, 8), vocab_size=1024, ch=16, ch_mult=(1, 2, 4, 8, 8), norm_groups=2
        )
    )
    side: int = 128
    early_side: int | None = None
    alternating: float = 0.5
    losses: Losses = field(default_factory=Losses)
    codebook: CodebookCare = field(default_factory=CodebookCare)
    adversarial: Adversarial = field(default_factory=Adversarial)

    def __post_init__(self) -> None:
        side = 16 * self.tokenizer.patch_nums[-1]
        sides = [each for each in range(16, side + 1, 16) if side % each == 0]
        check(self, "side", f"{side}, which is 16 times the last of patch_nums", lambda v: v == side, "recipe")
        check(
            self,
            "early_side",
            f"one of {sides} (16 times a divisor of {side // 16}), or null",
            lambda v: v in (None, *sides),
            "recipe",
        )
        check(self, "alternating", "0 to 1", lambda v: 0 <= v <= 1, "recipe")


HART_EMOJI = TokenizerRecipe(
    Optimisation(steps=11000, learning_rate=1.5e-3, betas=(0.9, 0.95)), early_side=64, codebook=CodebookCare(start=5000)
)


class Reconstructed(NamedTuple):
    """terms: of the loss, with their weighted sum `loss`; image: (B, 3, H, W); indices, tokens: as of Quantized."""

    terms: dict[str, Tensor]
    image: Tensor
    indices: list[Tensor]
    tokens: list[Tensor]


class Tokenizer(nn.Module):
    """Autoencoder and quantizer; forward is one training step."""

    def __init__(self, recipe: TokenizerRecipe) -> None:
        super().__init__()
        self.config = recipe.tokenizer
        self.autoencoder, self.quantizer = Autoencoder(recipe.tokenizer), Quantizer(recipe.tokenizer)
        self.weights, self.beta, self.adversarial = recipe.losses, recipe.tokenizer.beta, recipe.adversarial.weight
        with torch.no_grad():
            for phi in self.quantizer.phi:  # begin as the identity, so that f_hat begins as a sum of codes
                nn.init.dirac_(phi.weight)
                assert phi.bias is not None
                nn.init.zeros_(phi.bias)

    def forward(self, images: Tensor, discrete: Tensor | None, critic: Critic | None = None) -> Reconstructed:
        """images: (B, 3, H, W) in [-1, 1]. discrete: (B,) bool, who takes the discrete path; None while codes are not
        used. critic: where the adversarial term is on.
        """
        latent = self.autoencoder.encode(images).float()
        indices, tokens, terms = [], [], {}
        decoded = latent  # f_hat and what remains of it: the continuous path
        if discrete is not None:
            with torch.autocast(images.device.type, enabled=False):  # nearest codes want float32
                q = quantize(self.quantizer, latent, self.beta)
            decoded = torch.where(discrete[:, None, None, None], straight_through(latent, q.f_hat), latent)
            indices, tokens, terms["codes"] = q.indices, q.tokens, q.loss
        image = self.autoencoder.decode(decoded).float()
        terms |= reconstruction_terms(image, images)
        loss = weighted(terms, self.weights)
        if critic is not None:
            last = self.autoencoder.decoder.conv_out.weight
            terms["adversarial"] = adversarial_loss(critic(image).float(), loss, last, self.adversarial)
            loss = loss + terms["adversarial"]
        return Reconstructed({"loss": loss, **terms}, image.detach(), indices, tokens)


def publish_tokenizer(folder: Path, config: TokenizerConfig, model: Tokenizer, metadata: dict[str, str]) -> None:
    """Write FOLDER/tokenizer/ in the published layout, which load_checkpoint reads."""
    raw, tensors = published_tokenizer(config, model.state_dict())
    publish(folder / "tokenizer", raw, tensors, metadata)


def open_tokenizer(folder: str | Path) -> Tokenizer:
    """A tokenizer/ folder in the published layout as a module in eval mode, in float32. Raises CheckpointError."""
    config = read_tokenizer_config(read_json(Path(folder) / "config.json"))
    model = Tokenizer(TokenizerRecipe(Optimisation(steps=1, warmup=0), config, side=16 * config.patch_nums[-1]))
    load_tokenizer(folder, model)
    return model.eval().requires_grad_(False)
