"""The name of a bundle, from the folder that it is written to."""

from __future__ import annotations

import re
from pathlib import Path

from hart_edge.bundle.manifest import RANDOM_ENDING

LONGEST = 100  # characters


def bundle_name(out: Path, *, random: bool = False) -> str:
    """A manifest name from the folder's. random: of a bundle of random weights, whose name alone ends in -random."""
    ending = RANDOM_ENDING if random else ""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", out.name).lstrip("._-")
    name = re.sub(f"({RANDOM_ENDING})+$", "", name)[: LONGEST - len(ending)] or "bundle"
    return name + ending
