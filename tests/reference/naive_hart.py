"""A second implementation of HART, written from docs/arithmetic.md only: numpy, float64, loops, and slow.

In: the two config.json as dictionaries and the tensors under their published names. It shares no line with
hart_edge/reference/, so that a misreading there becomes a difference. The autoencoder is in naive_tokenizer.py.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from tests.reference.naive_tokenizer import NaiveTokenizer

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def step_features(step: float) -> Array:
    """256 numbers: cosines, then sines"""
    angles = [step * math.exp(-math.log(10000) * k / 128) for k in range(128)]
    return np.array([math.cos(a) for a in angles] + [math.sin(a) for a in angles])


def alpha_bar(u: float) -> float:
    return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2


class NaiveHART:
    def __init__(self, llm: dict, llm_state: dict, tokenizer: dict, tokenizer_state: dict) -> None:
        self.c, self.w = llm, {k: np.asarray(v, np.float64) for k, v in llm_state.items()}
        self.tokenizer = NaiveTokenizer(tokenizer, tokenizer_state)
        self.sides = llm["patch_nums"]
        self.head_dim = llm["embed_dim"] // llm["num_heads"]

    # --- small parts ---------------------------------------------------------------------------

    def linear(self, name: str, x: Array) -> Array:
        y = x @ self.w[f"{name}.weight"].T
        return y + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else y

    def rms(self, name: str, x: Array) -> Array:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + self.c["norm_eps"]) * self.w[f"{name}.weight"]

    def step_mlp(self, name: str, step: float) -> Array:
        return self.linear(f"{name}.mlp.2", silu(self.linear(f"{name}.mlp.0", step_features(step))))

    def level(self, s: int) -> Array:
        return self.step_mlp("lvl_embed", s) if self.c["use_timestep_embed"] else self.w["lvl_embed.weight"][s]

    # --- one image's transformer -----------------------------------------------------------------

    def context_tokens(self, context: Array) -> Array:
        """context: (T, D) -> (T, C)"""
        if self.c["use_context_norm"]:
            context = self.rms("context_norm", context)
        return self.linear("context_embed", context)

    def modulation(self, block: int, tokens: Array, mask: Array) -> list[Array] | None:
        """gamma1, gamma2, scale1, scale2, shift1, shift2, each (C,)"""
        width = tokens.shape[1]
        mean = sum(token for token, keep in zip(tokens, mask, strict=True) if keep) / mask.sum()
        if not self.c["disable_aln"]:
            pooled = tokens.max(0) if self.c["sep_aln_pooling_mode"] == "max" else mean
            six = self.linear(f"blocks.{block}.ada_lin.1", silu(pooled))
            return [six[i * width : (i + 1) * width] for i in range(6)]
        if self.c["shared_aln"]:
            return [row + mean for row in self.w[f"blocks.{block}.scale_shift_table"]]
        return None

    def angles(self, s: int, positions: Array) -> Array:
        """Rotary angles of a scale's tokens: (n, d)"""
        d, rows = self.head_dim, []
        if s == 0:
            for position in positions:
                half = [position * 10000 ** (-2 * k / d) for k in range(d // 2)]
                rows.append(half + half)
            return np.array(rows)
        side, last = self.sides[s], positions[-1]
        for r in range(side):
            for c in range(side):
                token: list[float] = []
                for coordinate in (r, c):
                    at = coordinate * self.sides[-1] / side + last
                    token += 2 * [at * 10000 ** (-4 * k / d) for k in range(d // 4)]
                rows.append(token)
        return np.array(rows)

    def turn(self, x: Array, angles: Array) -> Array:
        """Rotate each pair (i, i + d/2) of x (n, d)"""
        half, out = x.shape[1] // 2, np.empty_like(x)
        for i in range(half):
            a, b = angles[:, i], angles[:, i + half]
            out[:, i] = x[:, i] * np.cos(a) - x[:, i + half] * np.sin(a)
            out[:, i + half] = x[:, i + half] * np.cos(b) + x[:, i] * np.sin(b)
        return out

    def attention(self, block: int, x: Array, angles: Array, group: Array) -> Array:
        """x: all tokens so far (n, C); group: the scale of each. A token attends to its own scale and earlier ones."""
        prefix, C, d = f"blocks.{block}.attn", self.c["embed_dim"], self.head_dim
        weight = self.w[f"{prefix}.qkv_proj.weight"]
        q = x @ weight[:C].T + self.w[f"{prefix}.q_bias"]
        k = x @ weight[C : 2 * C].T
        v = x @ weight[2 * C :].T + self.w[f"{prefix}.v_bias"]
        out = np.zeros_like(x)
        for h in range(self.c["num_heads"]):
            own = slice(h * d, (h + 1) * d)
            qh, kh, factor = q[:, own], k[:, own], 0.25 / math.sqrt(d)
            if self.c["attn_l2_norm"]:
                qh = qh / np.sqrt((qh**2).sum(1, keepdims=True))
                kh = kh / np.sqrt((kh**2).sum(1, keepdims=True))
                factor = math.exp(min(self.w[f"{prefix}.scale_mul_1H11"][0, h, 0, 0], math.log(100)))
            qh, kh = self.turn(qh, angles), self.turn(kh, angles)
            for i in range(len(x)):
                seen = group <= group[i]
                out[i, own] = softmax(factor * (kh[seen] @ qh[i])) @ v[seen, own]
        return self.linear(f"{prefix}.proj", out)

    def mlp(self, block: int, x: Array) -> Array:
        hidden = (math.floor(self.c["embed_dim"] * self.c["mlp_ratio"] * 2 / 3) + 255) // 256 * 256
        assert self.w[f"blocks.{block}.ffn.up_proj.weight"].shape[0] == hidden
        gate, up = (self.linear(f"blocks.{block}.ffn.{name}_proj", x) for name in ("gate", "up"))
        return self.linear(f"blocks.{block}.ffn.down_proj", silu(gate) * up)

    def hidden(self, context: Array, mask: Array, latents: list[Array]) -> Array:
        """All scales up to the last given latent, recomputed without a cache: (T + sum of p_s^2, C)"""
        tokens, positions = self.context_tokens(context), np.cumsum(mask) - 1
        x = [tokens + self.level(0)]
        x += [self.linear("word_embed", latent) + self.level(s) for s, latent in enumerate(latents, start=1)]
        group = np.concatenate([np.full(len(part), s) for s, part in enumerate(x)])
        angles = np.concatenate([self.angles(s, positions) for s in range(len(x))])
        y = np.concatenate(x)
        for block in range(self.c["depth"]):
            modulation, norm = self.modulation(block, tokens, mask), f"blocks.{block}.ln_wo_grad"
            gamma1, gamma2, scale1, scale2, shift1, shift2 = modulation or (1, 1, 0, 0, 0, 0)
            y = y + gamma1 * self.attention(block, self.rms(norm, y) * (1 + scale1) + shift1, angles, group)
            y = y + gamma2 * self.mlp(block, self.rms(norm, y) * (1 + scale2) + shift2)
        return y

    def logits(self, hidden: Array, context: Array) -> Array:
        C = self.c["embed_dim"]
        two = self.linear("head_nm.ada_lin.1", silu(self.context_tokens(context).max(0)))
        return self.linear("head", self.rms("head_nm.ln_wo_grad", hidden) * (1 + two[:C]) + two[C:])

    def teacher_forced(self, latents: Array, context: Array, mask: Array) -> Array:
        """One image: latents (sum of p_s^2, s >= 1, Z) -> (sum of p_s^2, V)"""
        ends = np.cumsum([side * side for side in self.sides[1:]])
        hidden = self.hidden(context, mask, np.split(latents, ends[:-1]))
        return self.logits(hidden[len(context) - 1 :], context)

    # --- choosing tokens ---------------------------------------------------------------------------

    def ratio(self, s: int) -> float:
        last = len(self.sides) - 1
        return (s - 1 if s == last else s) / last

    def choose(self, logits: Array, uniform: Array, s: int, settings: dict) -> tuple[NDArray, Array]:
        """logits, uniform: (n, V) -> indices (n,), latent (n, Z)"""
        book, indices, latent = self.tokenizer.codebook, [], []
        top_k = min(settings.get("top_k") or (600 if s < 7 else 300), logits.shape[1])
        tau = max(0.27 * (1 - 0.95 * self.ratio(s)), 0.005)
        for row, u in zip(logits, uniform, strict=True):
            order = sorted(range(len(row)), key=lambda v: -row[v])[:top_k]
            if settings.get("top_p", 1.0) < 1:
                probability, kept, total = softmax(row[order]), [], 0.0
                for v, p in zip(order, probability, strict=True):
                    kept.append(v)
                    total += p
                    if total >= settings["top_p"]:
                        break
                order = kept
            noise = -np.log(-np.log(u[order]))
            indices.append(order[int(np.argmax(row[order] + noise))])
            mix = softmax((row[order] * (1 + self.ratio(s)) + noise) / tau) @ book[order]
            latent.append(mix if settings["smooth"] else book[indices[-1]])
        return np.array(indices), np.array(latent)

    # --- residual ------------------------------------------------------------------------------------

    def residual_net(self, x: Array, step: int, condition: Array) -> Array:
        """x: (n, Z); condition: (n, C) -> (n, 2Z)"""
        net = "diffloss.net"
        y = silu(self.step_mlp(f"{net}.time_embed", step) + self.linear(f"{net}.cond_embed", condition))
        x = self.linear(f"{net}.input_proj", x)

        def normed(x: Array) -> Array:
            return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-6)

        for i in range(self.c["diff_depth"]):
            block = f"{net}.res_blocks.{i}"
            shift, scale, gate = np.split(self.linear(f"{block}.adaLN_modulation.1", y), 3, 1)
            h = normed(x) * self.w[f"{block}.in_ln.weight"] + self.w[f"{block}.in_ln.bias"]
            h = self.linear(f"{block}.mlp.0", h * (1 + scale) + shift)
            x = x + gate * self.linear(f"{block}.mlp.2", silu(h))
        shift, scale = np.split(self.linear(f"{net}.final_layer.adaLN_modulation.1", y), 2, 1)
        return self.linear(f"{net}.final_layer.linear", normed(x) * (1 + scale) + shift)

    def sample_residual(self, condition: Array, noise: list[Array], t: float) -> Array:
        """condition: (2n, C); noise[0]: (n, Z); noise[1..N]: (2n, Z) -> (2n, Z)"""
        n, steps, x = len(noise[0]), int(self.c["num_sampling_steps"]), np.concatenate([noise[0], noise[0]])
        products, product = [], 1.0
        for i in range(1000):
            product *= 1 - min(1 - alpha_bar((i + 1) / 1000) / alpha_bar(i / 1000), 0.999)
            products.append(product)
        kept = [round(999 * i / (steps - 1)) for i in range(steps)] if steps > 1 else [0]
        bars = [products[step] for step in kept]
        betas = [1 - bar / before for bar, before in zip(bars, [1.0, *bars[:-1]], strict=True)]
        for i in reversed(range(steps)):
            bar, before = bars[i], bars[i - 1] if i else 1.0
            out = self.residual_net(np.concatenate([x[:n], x[:n]]), kept[i], condition)
            Z = x.shape[1]
            epsilon = (1 + t) * out[:n, :Z] - t * out[n:, :Z]
            epsilon = np.concatenate([epsilon, epsilon])
            x0 = np.clip((x - math.sqrt(1 - bar) * epsilon) / math.sqrt(bar), -1, 1)
            mean = (betas[i] * math.sqrt(before) * x0 + (1 - before) * math.sqrt(1 - betas[i]) * x) / (1 - bar)
            x = mean
            if i:
                posterior = betas[i] * (1 - before) / (1 - bar)
                f = (out[:, Z:] + 1) / 2
                x = mean + np.exp((f * math.log(betas[i]) + (1 - f) * math.log(posterior)) / 2) * noise[steps - i]
        return 0.6 * x

    # --- the whole ----------------------------------------------------------------------------------

    def generate(self, context: Array, mask: Array, uniforms: list[Array], noise: list[Array], settings: dict) -> dict:
        """context: (B, T, D); mask: (B, T); uniforms[s]: (B, n, V); noise as in sample_residual for B images.

        Returns lists over scales logits, indices, f_hat, next (arrays with B first), and condition, residual, image.
        """
        B, T, _ = context.shape
        nothing, first = np.zeros_like(context[0]), np.arange(T) == 0
        last, f_hat = len(self.sides) - 1, [0.0] * B
        latents: list[list[Array]] = [[] for _ in range(B)]
        found: dict = {name: [] for name in ("logits", "indices", "f_hat", "next")}
        for s, side in enumerate(self.sides):
            t, n = settings["cfg_scale"] * self.ratio(s), side * side
            both = [self.hidden(context[b], mask[b], latents[b])[-n:] for b in range(B)]
            both += [self.hidden(nothing, first, latents[b])[-n:] for b in range(B)]
            logits = [
                (1 + t) * self.logits(both[b], context[b]) - t * self.logits(both[B + b], nothing) for b in range(B)
            ]
            chosen = [self.choose(logits[b], uniforms[s][b], s, settings) for b in range(B)]
            found["logits"].append(np.array(logits))
            found["indices"].append(np.array([indices for indices, _ in chosen]))
            if s == last:
                break
            for b, (_, latent) in enumerate(chosen):
                f_hat[b] = f_hat[b] + self.tokenizer.contribution(latent, s)
                latents[b].append(self.tokenizer.seen_at(f_hat[b], s + 1))
            found["f_hat"].append(np.array(f_hat))
            found["next"].append(np.array([latents[b][-1] for b in range(B)]))
        codes = [self.linear("word_embed", self.tokenizer.codebook[indices]) for indices, _ in chosen] * 2
        condition = np.concatenate([self.rms("decoder_norm", h + e) for h, e in zip(both, codes, strict=True)])
        residual = self.sample_residual(condition, noise, t)
        for b, (_, latent) in enumerate(chosen):
            whole = latent + residual[b * n : (b + 1) * n]
            f_hat[b] = f_hat[b] + whole.T.reshape(-1, side, side)
        found["f_hat"].append(np.array(f_hat))
        image = np.array([(np.clip(self.tokenizer.decode(f), -1, 1) + 1) / 2 for f in f_hat])
        return found | {"condition": condition, "residual": residual, "image": image}
