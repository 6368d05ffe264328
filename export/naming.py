"""The name of a bundle, from the folder that it is written to."""

from __future__ import annotations

import re
from pathlib import Path


def bundle_name(out: Path) -> str:
    """A manifest name from the folder's."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", out.name).lstrip("._-")[:100] or "bundle"
