"""Image <-> latent: the convolutional pair of the hybrid tokenizer, 16x down.

Source: VQ-GAN (Esser et al. 2021), as HART's tokenizer configures it. Attribute names `down`, `mid`, `up` follow the
figure there and the published key names.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hart_edge.reference.config import DOWNSAMPLE_BLOCKS, TokenizerConfig


def group_norm(channels: int, groups: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    def __init__(self, inside: int, outside: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = group_norm(inside, groups), nn.Conv2d(inside, outside, 3, padding=1)
        self.norm2, self.conv2 = group_norm(outside, groups), nn.Conv2d(outside, outside, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class SpatialAttention(nn.Module):
    """Single-head attention over the positions of a feature map."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm, self.qkv = group_norm(channels, groups), nn.Conv2d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        q, k, v = self.qkv(self.norm(x)).flatten(2).chunk(3, 1)  # (B, C, h * w) each
        weight = ((q * channels**-0.5).transpose(1, 2) @ k).softmax(-1)  # (B, queries, keys); q first: FP16 holds it
        out = (v @ weight.transpose(1, 2)).view_as(x)
        return x + self.proj_out(out)


class Middle(nn.Module):
    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, groups)
        self.attn_1 = SpatialAttention(channels, groups)
        self.block_2 = ResidualBlock(channels, channels, groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))  # right and bottom only


class Upsample(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution, with attention where it is the lowest, and the resampling that follows."""

    def __init__(
        self,
        inside: int,
        outside: int,
        blocks: int,
        groups: int,
        *,
        attention: bool = False,
        downsample: bool = False,
        upsample: bool = False,
    ) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(inside if i == 0 else outside, outside, groups) for i in range(blocks))
        self.attn = nn.ModuleList(SpatialAttention(outside, groups) for _ in range(blocks if attention else 0))
        self.downsample = Downsample(outside) if downsample else nn.Identity()
        self.upsample = Upsample(outside) if upsample else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for i, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[i](x)
        return self.upsample(self.downsample(x))


class Encoder(nn.Module):
    """(B, 3, 16P, 16P) in [-1, 1] -> (B, Z, P, P), before quant_conv"""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths, groups = [config.ch * factor for factor in config.ch_mult], config.norm_groups
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, config.ch, 3, padding=1)
        inside = [config.ch, *widths]
        self.down = nn.ModuleList(
            Level(inside[i], widths[i], DOWNSAMPLE_BLOCKS, groups, attention=i == last, downsample=i < last)
            for i in range(last + 1)
        )
        self.mid = Middle(widths[last], groups)
        self.norm_out = group_norm(widths[last], groups)
        self.conv_out = nn.Conv2d(widths[last], config.z_channels, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.conv_in(image)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    """(B, Z, P, P), after post_quant_conv -> (B, 3, 16P, 16P) in about [-1, 1]"""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths, groups = [config.ch * factor for factor in config.ch_mult], config.norm_groups
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.z_channels, widths[last], 3, padding=1)
        self.mid = Middle(widths[last], groups)
        inside = [*widths[1:], widths[last]]
        self.up = nn.ModuleList(  # up[0] is the finest resolution, as in the published keys
            Level(inside[i], widths[i], DOWNSAMPLE_BLOCKS + 1, groups, attention=i == last, upsample=i > 0)
            for i in range(last + 1)
        )
        self.norm_out = group_norm(widths[0], groups)
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        x = self.mid(self.conv_in(latent))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Autoencoder(nn.Module):
    """Encoder and decoder with the 3x3 convolutions around the quantiser."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        z, kernel = config.z_channels, config.quant_conv_ks
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.quant_conv = nn.Conv2d(z, z, kernel, padding=kernel // 2)
        self.post_quant_conv = nn.Conv2d(z, z, kernel, padding=kernel // 2)

    def encode(self, image: Tensor) -> Tensor:
        """(B, 3, 16P, 16P) in [-1, 1] -> continuous latent (B, Z, P, P)"""
        return self.quant_conv(self.encoder(image))

    def decode(self, latent: Tensor) -> Tensor:
        """(B, Z, P, P) -> image (B, 3, 16P, 16P), not clipped"""
        return self.decoder(self.post_quant_conv(latent))
