"""A golden checkpoint that builds in a second once its graphs are traced, and functions to compare folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hart_edge.cli.macs import read_configs
from hart_edge.reference.config import TokenizerConfig, TransformerConfig
from tests.conftest import GOLDEN

CHECKPOINT = GOLDEN / "adaln"  # 12 context tokens of 48, no text model


def small_configs(preset: str) -> tuple[TransformerConfig, TokenizerConfig]:
    """The configurations of that checkpoint, whatever the preset."""
    return read_configs(CHECKPOINT)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> dict[str, str]:
    """Hashes of all files of a folder, hidden ones too."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
