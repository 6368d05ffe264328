"""The judge: an image-text dual encoder, trained on the training split alone (hart_edge/training/evaluator/).

In: pictures, or token ids of prompts. Out: features for the Frechet distance, and unit vectors that are close where
picture and prompt belong together. Source: CLIP (Radford et al. 2021), at a size that two CPU cores train.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hart_edge.errors import CheckpointError
from hart_edge.reference.autoencoder import ResidualBlock, group_norm
from hart_edge.reference.checkpoint import reads_checkpoint
from hart_edge.reference.text_model import TextModel, load_text_model
from hart_edge.reference.weight_files import check_state, read_json, read_tensors
from hart_edge.runtime.prompt_tokenizer import PromptTokenizer

CONFIG_FILE, WEIGHTS_FILE, TEXT_FOLDER = "config.json", "model.safetensors", "text_model"
FORMAT = 1
GROUP = 8  # channels that a GroupNorm brings to mean 0 and variance 1 together
STEM = 4  # stride of the first convolution, which makes one position of STEM x STEM pixels
MAX_LOG_SCALE = math.log(100)
BATCH = 32
OWN = ("image.", "image_embed.", "text_embed.", "log_scale")  # prefixes of the weights that are not in text_model/


@dataclass(frozen=True)
class EvaluatorConfig:
    """side: of the pictures it sees, in pixels; widths: channels, each at half the resolution of the one before, and
    the last is the number of features; tokens, text_width: of the text tower; embedding: of both towers' vectors.
    Raises ValueError for a shape that cannot be built.
    """

    side: int = 128
    widths: tuple[int, ...] = (16, 32, 64, 128)
    tokens: int = 24
    text_width: int = 96
    embedding: int = 96

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or any(width < GROUP or width % GROUP for width in self.widths):
            raise ValueError(f"widths: expected two or more multiples of {GROUP}, found {self.widths!r}")
        least = STEM * 2 ** (len(self.widths) - 1)
        if self.side < least or self.side % least:
            raise ValueError(f"side: expected a multiple of {least} from {least} up, found {self.side!r}")
        for name in ("tokens", "text_width", "embedding"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}: expected at least 1, found {value!r}")


def read_evaluator_config(raw: dict[str, Any], path: Path) -> EvaluatorConfig:
    """The fields of evaluator/config.json. Raises CheckpointError where one is unknown or has a wrong value."""
    try:
        return EvaluatorConfig(**{name: _whole(name, value) for name, value in raw.items()})
    except (TypeError, ValueError) as error:
        reason = str(error).split("__init__() ")[-1]
        raise CheckpointError(f"{path}: {reason}; copy the folder again") from None


def _whole(name: str, value: Any) -> Any:
    """An integer of a JSON file, or a list of them as a tuple. Raises ValueError."""
    if name == "widths" and isinstance(value, list):
        return tuple(_whole(name, each) for each in value)
    if type(value) is not int:
        raise ValueError(f"{name}: expected an integer, found {value!r}")
    return value


class ImageTower(nn.Module):
    """(B, 3, side, side) in [-1, 1] -> features (B, widths[-1]): the mean over positions of the last activation."""

    def __init__(self, config: EvaluatorConfig) -> None:
        super().__init__()
        widths = config.widths
        self.stem = nn.Conv2d(3, widths[0], 2 * STEM - 1, stride=STEM, padding=STEM - 1)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, 2, padding=1) for a, b in itertools.pairwise(widths))
        self.blocks = nn.ModuleList(ResidualBlock(width, width, width // GROUP) for width in widths[1:])
        self.norm = group_norm(widths[-1], widths[-1] // GROUP)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images)
        for down, block in zip(self.down, self.blocks, strict=True):
            x = block(down(F.silu(x)))
        return F.silu(self.norm(x)).mean((2, 3))


class Evaluator(nn.Module):
    """Both towers. E channels of the shared space, T tokens."""

    def __init__(self, config: EvaluatorConfig, text: TextModel) -> None:
        super().__init__()
        self.config, self.text = config, text
        self.image = ImageTower(config)
        self.image_embed = nn.Linear(config.widths[-1], config.embedding)
        self.text_embed = nn.Linear(config.text_width, config.embedding)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """images: (B, 3, side, side) in [-1, 1]; ids: (B, T) -> unit vectors of both (B, E), and the logits' scale."""
        scale = self.log_scale.clamp(max=MAX_LOG_SCALE).exp()
        return self.embed_images(self.image(images)), self.embed_ids(ids), scale

    def embed_images(self, features: Tensor) -> Tensor:
        """features: (B, widths[-1]) -> (B, E), of length 1"""
        return F.normalize(self.image_embed(features).float(), dim=-1)

    def embed_ids(self, ids: Tensor) -> Tensor:
        """ids: (B, T) int64 -> (B, E), of length 1, from the mean of the text model's states over the words"""
        context, mask = self.text(ids)
        weight = mask.to(context.dtype)[..., None]
        return F.normalize(self.text_embed((context * weight).sum(1) / weight.sum(1).clamp(min=1)).float(), dim=-1)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """images: (B, 3, H, H) uint8 of any side -> (B, widths[-1]) float32, what the Frechet distance compares"""
        return torch.cat([self.image(self.seen(part)) for part in images.split(BATCH)]).float()

    def seen(self, images: Tensor) -> Tensor:
        """(B, 3, H, H) uint8 -> (B, 3, side, side) in [-1, 1], resized where the side differs"""
        pixels = images.to(self.image_embed.weight.device).float() / 127.5 - 1
        if pixels.shape[-1] != self.config.side:
            pixels = F.interpolate(pixels, (self.config.side,) * 2, mode="bilinear", antialias=True)
        return pixels


@dataclass(frozen=True)
class Judge:
    """An evaluator that was read from its folder. sha256: of its weights and its tokenizer."""

    model: Evaluator
    tokenizer: PromptTokenizer
    sha256: str

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence[str]) -> Tensor:
        """(N, E); a prompt beyond the text tower's tokens is judged by its first ones"""
        ids = torch.from_numpy(np.concatenate([self.tokenizer.encode(prompt) for prompt in prompts]).astype(np.int64))
        return torch.cat([self.model.embed_ids(part) for part in ids.split(BATCH)])

    @torch.no_grad()
    def embed_pictures(self, images: Tensor) -> Tensor:
        """images: (N, 3, H, H) uint8 -> (N, E)"""
        return self.model.embed_images(self.model.features(images))


def digest_of(model: Evaluator, definition: str) -> str:
    """SHA-256 of what the figures follow from: every tensor with its name and shape, and the text of tokenizer.json."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    digest.update(definition.encode())
    return digest.hexdigest()


@reads_checkpoint
def open_evaluator(folder: str | Path) -> Judge:
    """Read an evaluator/ folder, in eval mode. Raises CheckpointError where it is incomplete or not what was hashed."""
    folder = Path(folder)
    if not (folder / CONFIG_FILE).is_file() and (folder / "evaluator" / CONFIG_FILE).is_file():
        raise CheckpointError(
            f"{folder}: expected an evaluator/ folder, found the run that made it; name {folder}/evaluator"
        )
    raw: dict[str, Any] = read_json(folder / CONFIG_FILE)
    if raw.pop("format", None) != FORMAT or not isinstance(expected := raw.pop("sha256", None), str):
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: expected format {FORMAT} with a sha256, found another file; name the evaluator/ "
            "folder that hart-edge train evaluator wrote"
        )
    config = read_evaluator_config(raw, folder / CONFIG_FILE)
    text, tokenizer = load_text_model(folder / TEXT_FOLDER, config.tokens, PromptTokenizer.padding_with)
    width = text.model.config.hidden_size
    if width != config.text_width:
        raise CheckpointError(
            f"{folder}: expected a text model of {config.text_width} channels, found {width}; copy the folder again"
        )
    model = Evaluator(config, text)
    state = read_tensors(folder / WEIGHTS_FILE)
    check_state(state, model, OWN, folder / WEIGHTS_FILE)
    model.load_state_dict(state, strict=False)  # the text model has its weights already
    found = digest_of(model, (folder / TEXT_FOLDER / "tokenizer.json").read_text("utf-8"))
    if found != expected:
        raise CheckpointError(
            f"{folder}: expected weights of sha256 {expected[:16]}, found {found[:16]}; copy the folder again, or "
            "resume its training where that was stopped while it wrote"
        )
    return Judge(model.eval().requires_grad_(False), tokenizer, found)
