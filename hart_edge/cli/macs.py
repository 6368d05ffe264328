"""`hart-edge info --macs`: multiply-accumulates per component and scale of a checkpoint or of a preset."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hart_edge.checks.macs import MacCount, count_macs
from hart_edge.cli.tables import table
from hart_edge.errors import CheckpointError
from hart_edge.reference.config import (
    TokenizerConfig,
    TransformerConfig,
    read_tokenizer_config,
    read_transformer_config,
)
from hart_edge.reference.presets import PRESETS, configs
from hart_edge.reference.weight_files import read_json

HEAD = ("component", "scale", "layers", "attention", "computed")
NUMBERS = frozenset({"scale", "layers", "attention"})


def run(a: argparse.Namespace) -> int:
    counts = count_macs(*read_configs(a.bundle))
    if a.json:
        print(json.dumps({"of": str(a.bundle), "counts": [vars(each) for each in counts], "totals": totals(counts)}))
    else:
        print("\n".join(as_text(counts)))
    return 0


def read_configs(named: Path) -> tuple[TransformerConfig, TokenizerConfig]:
    """The configurations of a checkpoint folder (its weights are not read) or of a preset. Raises CheckpointError."""
    if str(named) in PRESETS:
        return configs(str(named))
    if not named.is_dir() or not (named / "llm").is_dir():
        raise CheckpointError(
            f"{named}: expected a checkpoint folder with tokenizer/ and llm/, or one of {', '.join(PRESETS)}; "
            "a bundle does not hold the configuration that it was made from"
        )
    return (
        read_transformer_config(read_json(named / "llm" / "config.json")),
        read_tokenizer_config(read_json(named / "tokenizer" / "config.json")),
    )


def totals(counts: list[MacCount]) -> dict[str, int]:
    """The sums that papers quote. A picture takes every component but the encoder."""
    picture = [each for each in counts if each.component != "encoder"]
    return {
        "picture, guided": sum((each.layers + each.attention) * (1 + each.guided) for each in picture),
        "picture, one half": sum(each.layers + each.attention for each in picture),
        "layers of all components, one half": sum(each.layers for each in counts),
    }


def as_text(counts: list[MacCount]) -> list[str]:
    """The lines that a person reads; counts in G, 10^9."""
    rows = [
        (
            each.component,
            "" if each.scale is None else str(each.scale),
            f"{each.layers / 1e9:,.3f}",
            f"{each.attention / 1e9:,.3f}",
            "twice" if each.guided else "once",
        )
        for each in counts
    ]
    sums = totals(counts)
    width = max(map(len, sums))
    return [
        *table(HEAD, rows, NUMBERS),
        "",
        *(f"{name:{width}}  {count / 1e12:.4f} T" for name, count in sums.items()),
        "",
        "Multiply-accumulates of one image and one branch of the guidance, in 10^9 (G). layers: linear and convolution",
        "layers and resizes; attention: its two products. Guidance computes a component twice or once. The text model,",
        "norms, activations and sampling are not counted.",
    ]
