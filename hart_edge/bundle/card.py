"""The model card of a bundle: its README.md, generated from what the build knows.

A checkpoint's own card may name the styles that its model was trained in, and prompts that it draws well, in lines such
as

    Styles: `3d`, `flat`, `noto`.
    Examples: `penguin`, `red heart`.

The bundle's card repeats them, and whoever offers them for choice (the server's page) reads them there.
"""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from hart_edge.bundle.manifest import Manifest
from hart_edge.bundle.quality import LIMITS, Limits, Quality, decibels, percent
from hart_edge.bundle.settings import in_words

RANDOM = (
    "**Random weights.** This bundle has the shape of a published model and none of its weights: it is for measuring "
    "time and memory. Its pictures show noise, and the errors below say nothing about that model.",
    "",
)


CARD_FILE = "README.md"
STYLES = re.compile(r"^Styles: (.*)$", re.MULTILINE)
STYLE = re.compile(r"`([^`\s,]{1,40})`")
MOST_STYLES = 20
EXAMPLES = re.compile(r"^Examples: (.*)$", re.MULTILINE)
EXAMPLE = re.compile(r"`([^`\s,](?:[^`\r\n]{0,78}[^`\s])?)`")
MOST_EXAMPLES = 12


@dataclass(frozen=True)
class PromptHints:
    """styles: words that choose one, behind a comma at the end of a prompt; examples: prompts that the model draws
    well."""

    styles: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()


NO_HINTS = PromptHints()


def write_card(
    manifest: Manifest,
    machine: str,
    seconds: float,
    command: str,
    limits: Limits | None = None,
    hints: PromptHints = NO_HINTS,
) -> str:
    """Markdown. machine, seconds and command: where, how long and with what the bundle was built.

    limits: those that the build applied, None where they are not known; then the precision's are shown. hints: those of
    the checkpoint's own card.
    """
    m = manifest
    total = sum(component.bytes for component in m.components)
    asks = "a prompt" if m.tokenizer else f"a context array ({m.context_tokens}, {m.context_dim}) and its mask"
    lines = [
        f"# {m.name}",
        "",
        *(RANDOM if m.random else ()),
        f"A hart-edge bundle, format version {m.format_version}: {asks} in, a {m.image_size} x {m.image_size} picture "
        f"out, for target `{m.target.name}` at `{m.precision}`.",
        "",
        f"Scales {' '.join(map(str, m.patch_nums))}, {m.vocab_size} codes of {m.z_channels} channels, "
        f"{len(m.residual.timesteps)} residual steps. Defaults: {in_words(m.sampling)}.",
        "",
        *(
            (f"Styles: {_quoted(hints.styles)}. A prompt ends with a comma and one of them.", "")
            if hints.styles
            else ()
        ),
        *((f"Examples: {_quoted(hints.examples)}.", "") if hints.examples else ()),
        *_instruction(m),
        "| component | precision | scheme | parameters | bytes | largest error | in |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    lines += [
        f"| {c.name} | {c.precision} | {c.scheme} | {c.parameters:,} | {c.bytes:,} | {c.max_error:.1e} "
        f"| {c.worst_tensor} |"
        for c in m.components
    ]
    lines += [
        f"| total | | | {sum(c.parameters for c in m.components):,} | {total:,} | | |",
        "",
        "Largest error: against the PyTorch reference on the inputs that the real loop gives each graph, relative to "
        "the output's largest magnitude (at least 1).",
        "",
    ]
    if m.quality:
        lines += _quality(m, m.quality, limits or LIMITS[m.precision])
    reasons = [f"- {c.name}: {c.reason}" for c in m.components if c.reason]
    if reasons:
        lines += [
            "Why the components have these schemes, by what was measured on the machine that built them:",
            "",
            *reasons,
            "",
        ]
    if m.target.engines:
        e = m.target.engines
        lines += [
            f"Engines of {m.target.name} {e.version} for {', '.join(e.architectures)}, which take up to "
            f"{e.images_at_once} images at once; engines/NAME.json tells what became of every node of a graph. The "
            "errors are those of the graphs that the engines were made from, computed on a CPU.",
            "",
        ]
    if m.calibration:
        lines += [f"INT8 ranges: {m.calibration.prompts} prompts, sha256 {m.calibration.ranges_sha256[:16]}.", ""]
    lines += ["## Use", "", "    import hart_edge"]
    if m.tokenizer:
        lines += ['    hart_edge.load("THIS FOLDER").generate("a red heart", seed=7).save("heart.png")', ""]
    else:
        lines += ['    hart_edge.load("THIS FOLDER").generate(hart_edge.Context(tokens, mask)).save("picture.png")', ""]
    lines += ["## Licences", ""]
    lines += [f"- {entry.part}: {entry.spdx}. {entry.attribution}" for entry in m.licences]
    if m.random:
        lines += ["The weights are random numbers, and nobody's work."]
    elif not m.licences:
        lines += ["The checkpoint states none (licences.json); ask whoever made it before you pass this on."]
    tools = ", ".join(f"{name} {version}" for name, version in m.tools.items())
    lines += ["", "## Built", "", f"In {seconds:.0f} s on {machine}, with {tools}:", "", f"    {command}", ""]
    return "\n".join(lines)


def _quality(m: Manifest, quality: Quality, limits: Limits) -> list[str]:
    """A table by scale, the decoder, and the limits of both."""
    lines = [
        "| scale | tokens | cosine | largest error | top-1 | KL, nats | guided top-1 | guided KL |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for scale, (side, q) in enumerate(zip(m.patch_nums, quality.scales, strict=True)):
        lines.append(
            f"| {scale} | {quality.prompts * side**2:,} | {q.cosine:.6f} | {q.largest_error:.1e} | {percent(q.top_1)} "
            f"| {q.kl:.1e} | {percent(q.guided_top_1)} | {q.guided_kl:.1e} |"
        )
    lines += [
        f"| limit | | | | {percent(limits.min_top_1)} | {limits.max_kl:.1e} | | |",
        "",
        f"Decoder, worst picture: {decibels(quality.decoder_psnr)}, limit {limits.min_psnr:g} dB.",
        "",
        "Logits that predict codes, and the picture, against the PyTorch reference's on the same inputs and the same "
        f"KV cache, on {quality.prompts} prompts that calibration has not seen. Top-1: how many tokens have the "
        "reference's likeliest code; one of a scale may always differ. Guided: after the default guidance.",
        "",
    ]
    if m.tokenizer is None:
        lines += ["Noise stood in for prompts, as there is no text model: the limits on logits were not applied.", ""]
    return lines


def read_hints(folder: Path) -> PromptHints:
    """What the card of a checkpoint or a bundle tells of prompts; nothing where there is no card."""
    try:
        text = (folder / CARD_FILE).read_text("utf-8")
    except (OSError, ValueError):
        return NO_HINTS
    return PromptHints(
        _items(text, STYLES, STYLE)[:MOST_STYLES],
        _items(text, EXAMPLES, EXAMPLE)[:MOST_EXAMPLES],
    )


def _items(text: str, pattern: re.Pattern[str], item: re.Pattern[str]) -> tuple[str, ...]:
    """The items in the first line that fits the pattern, each once."""
    line = pattern.search(text)
    return tuple(dict.fromkeys(item.findall(line[1]))) if line else ()


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _instruction(m: Manifest) -> list[str]:
    found = None if m.tokenizer is None else m.tokenizer.instruction
    if found is None:
        return []
    return [
        f"An instruction of {found.tokens} tokens stands in front of every prompt (SHA-256 of its text "
        f"{found.sha256}). Its keys and values are constants of the text model's graph.",
        "",
    ]


def describe_machine() -> str:
    return f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
