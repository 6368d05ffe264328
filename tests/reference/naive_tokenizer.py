"""A second implementation of the tokenizer, from docs/arithmetic.md only: numpy, float64, one image at a time."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def conv(x: Array, weight: Array, bias: Array, stride: int = 1, pad: tuple[int, int] | None = None) -> Array:
    """x: (I, h, w); weight: (O, I, k, k); pad: zeros before and after, "same" where not given"""
    k = weight.shape[-1]
    before, after = pad or (k // 2, k // 2)
    x = np.pad(x, ((0, 0), (before, after), (before, after)))
    size = (x.shape[1] - k) // stride + 1
    out = np.zeros((len(weight), size, size)) + bias[:, None, None]
    for i in range(k):
        for j in range(k):
            window = x[:, i : i + stride * size : stride, j : j + stride * size : stride][:, :size, :size]
            out += np.tensordot(weight[:, :, i, j], window, 1)
    return out


def keys(distance: float) -> float:
    """Cubic convolution with a = -0.75"""
    d, a = abs(distance), -0.75
    if d < 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def bicubic_row(x: Array, size: int) -> Array:
    """Resample the last axis without align_corners; samples past an edge repeat it."""
    n = x.shape[-1]
    out = np.zeros((*x.shape[:-1], size))
    for i in range(size):
        centre = (i + 0.5) * n / size - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            out[..., i] += keys(centre - tap) * x[..., min(max(tap, 0), n - 1)]
    return out


def bicubic(x: Array, size: int) -> Array:
    """(Z, p, p) -> (Z, size, size)"""
    across = bicubic_row(x, size)
    return np.swapaxes(bicubic_row(np.swapaxes(across, 1, 2), size), 1, 2)


def area(x: Array, size: int) -> Array:
    """Adaptive average: (Z, P, P) -> (Z, size, size)"""
    n = x.shape[-1]
    out = np.zeros((len(x), size, size))
    spans = [(math.floor(i * n / size), math.ceil((i + 1) * n / size)) for i in range(size)]
    for i, (top, bottom) in enumerate(spans):
        for j, (left, right) in enumerate(spans):
            out[:, i, j] = x[:, top:bottom, left:right].mean((1, 2))
    return out


class NaiveTokenizer:
    def __init__(self, config: dict, state: dict) -> None:
        self.c = config
        self.w = {k.removeprefix("vae."): np.asarray(v, np.float64) for k, v in state.items() if k.startswith("vae.")}
        self.codebook = self.w["quantize.embedding.weight"]
        self.sides = config["v_patch_nums"]

    # --- codes and latents --------------------------------------------------------------------------

    def phi_name(self, s: int) -> str:
        """Which of the shared convolutions belongs to scale s"""
        count, last = self.c["share_quant_resi"], len(self.sides) - 1
        if count == 1:
            return "quantize.quant_resi.qresi"
        stem = "quantize.quant_resi.qresi_ls"
        if count == 0:  # one per scale
            count, stem = last + 1, "quantize.quant_resi"
        first = 1 / 12 if count == 4 else 1 / (2 * count)
        # With 4 phi and an odd number of scales the middle one lies between two ticks, and rounding decides. Golden
        # records (plain, five scales) show that this has to be numpy's linspace.
        distances = [abs(tick - s / last) for tick in np.linspace(first, 1 - first, count)]
        return f"{stem}.{distances.index(min(distances))}"

    def phi(self, h: Array, s: int) -> Array:
        r, name = abs(self.c["quant_resi"]), self.phi_name(s)
        if r == 0:
            return h
        return (1 - r) * h + r * conv(h, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def contribution(self, codes: Array, s: int, with_phi: bool = True) -> Array:
        """What scale s adds to the latent: codes (p_s^2, Z) -> (Z, P, P)"""
        side, final = self.sides[s], self.sides[-1]
        h = np.zeros((codes.shape[1], side, side))
        for i, code in enumerate(codes):
            h[:, i // side, i % side] = code
        if side != final:
            h = bicubic(h, final)
        return self.phi(h, s) if with_phi else h

    def seen_at(self, latent: Array, s: int) -> Array:
        """(Z, P, P) -> (p_s^2, Z)"""
        small = area(latent, self.sides[s])
        return np.array([small[:, i, j] for i in range(self.sides[s]) for j in range(self.sides[s])])

    def quantise(self, latent: Array, phi_at_last: bool) -> tuple[list[NDArray], Array, Array]:
        """Indices per scale, f_hat (Z, P, P), and what is left before the last scale's codes are subtracted (P^2, Z)"""
        rest, f_hat, indices, last = latent, np.zeros_like(latent), [], len(self.sides) - 1
        for s in range(last + 1):
            before = rest
            wanted = self.seen_at(rest, s)
            indices.append(np.array([((self.codebook - token) ** 2).sum(1).argmin() for token in wanted]))
            h = self.contribution(self.codebook[indices[-1]], s, with_phi=s < last or phi_at_last)
            f_hat, rest = f_hat + h, rest - h
        return indices, f_hat, self.seen_at(before, last)

    # --- convolutions -----------------------------------------------------------------------------

    def conv(self, name: str, x: Array, **how) -> Array:
        return conv(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"], **how)

    def norm(self, name: str, x: Array) -> Array:
        groups = x.reshape(self.c.get("norm_groups", 32), -1)
        normed = (groups - groups.mean(1, keepdims=True)) / np.sqrt(groups.var(1, keepdims=True) + 1e-6)
        return normed.reshape(x.shape) * self.w[f"{name}.weight"][:, None, None] + self.w[f"{name}.bias"][:, None, None]

    def residual_block(self, name: str, x: Array) -> Array:
        h = self.conv(f"{name}.conv1", silu(self.norm(f"{name}.norm1", x)))
        h = self.conv(f"{name}.conv2", silu(self.norm(f"{name}.norm2", h)))
        return h + (self.conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in self.w else x)

    def attention(self, name: str, x: Array) -> Array:
        C = len(x)
        q, k, v = np.split(self.conv(f"{name}.qkv", self.norm(f"{name}.norm", x)).reshape(3 * C, -1), 3)
        scores = q.T @ k / math.sqrt(C)  # (queries, keys)
        weight = np.exp(scores - scores.max(1, keepdims=True))
        weight /= weight.sum(1, keepdims=True)
        return x + self.conv(f"{name}.proj_out", (v @ weight.T).reshape(x.shape))

    def middle(self, name: str, x: Array) -> Array:
        x = self.attention(f"{name}.attn_1", self.residual_block(f"{name}.block_1", x))
        return self.residual_block(f"{name}.block_2", x)

    def resolution(self, name: str, x: Array, blocks: int, attention: bool) -> Array:
        for i in range(blocks):
            x = self.residual_block(f"{name}.block.{i}", x)
            if attention:
                x = self.attention(f"{name}.attn.{i}", x)
        return x

    def encode(self, image: Array) -> Array:
        """(3, 16P, 16P) in [-1, 1] -> (Z, P, P)"""
        x, last = self.conv("encoder.conv_in", image), len(self.c["ch_mult"]) - 1
        for i in range(last + 1):
            x = self.resolution(f"encoder.down.{i}", x, 2, i == last)
            if i < last:
                x = self.conv(f"encoder.down.{i}.downsample.conv", x, stride=2, pad=(0, 1))
        x = silu(self.norm("encoder.norm_out", self.middle("encoder.mid", x)))
        return self.conv("quant_conv", self.conv("encoder.conv_out", x))

    def decode(self, latent: Array) -> Array:
        """(Z, P, P) -> (3, 16P, 16P), not clipped"""
        x = self.middle("decoder.mid", self.conv("decoder.conv_in", self.conv("post_quant_conv", latent)))
        last = len(self.c["ch_mult"]) - 1
        for i in reversed(range(last + 1)):
            x = self.resolution(f"decoder.up.{i}", x, 3, i == last)
            if i > 0:
                x = self.conv(f"decoder.up.{i}.upsample.conv", x.repeat(2, 1).repeat(2, 2))
        return self.conv("decoder.conv_out", silu(self.norm("decoder.norm_out", x)))
