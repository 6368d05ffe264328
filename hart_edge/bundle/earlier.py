"""What a bundle of an earlier format still tells: enough to build it again from its checkpoint (`hart-edge upgrade`).

In: a folder with a manifest.json of any format. Out: an EarlierBundle. Nothing else of the folder is trusted or read.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hart_edge.bundle.fields import show
from hart_edge.bundle.manifest import FORMAT_VERSION, MANIFEST_FILE, MOST_MANIFEST_BYTES, Precision, Target
from hart_edge.bundle.settings import DEFAULTS, Settings, refusal
from hart_edge.errors import BundleError

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True)
class EarlierBundle:
    """settings: how it draws unless a caller asks otherwise; ranges: its file of INT8 ranges, None for none."""

    format_version: int
    name: str
    precision: Precision
    target: Target
    has_engines: bool
    settings: Settings
    ranges: Path | None


def read_earlier(folder: Path) -> EarlierBundle:
    """Raises BundleError for a folder that holds no bundle, and for one that a later version has written."""
    value = _manifest(folder)
    version, target, sampling = value.get("format_version"), value.get("target"), value.get("sampling")
    if type(version) is not int or version < 1:
        raise _unknown("format_version", "1 or more", version)
    if version > FORMAT_VERSION:
        raise BundleError(f"{folder}: has format {version}, this version reads {FORMAT_VERSION}; update hart-edge")
    described = target if isinstance(target, dict) else {"name": target}
    precision, name = value.get("precision"), value.get("name")
    if precision not in list(Precision):
        raise _unknown("precision", ", ".join(Precision), precision)
    if described.get("name") not in list(Target):
        raise _unknown("target.name", ", ".join(Target), described.get("name"))
    if not isinstance(name, str) or not isinstance(sampling, dict):
        raise _unknown("name and sampling", "text and an object", name)
    settings = {key: sampling[key] for key in DEFAULTS if key in sampling and refusal(key, sampling[key]) is None}
    ranges = folder / CALIBRATION_FILE
    return EarlierBundle(
        version,
        name,
        Precision(precision),
        Target(str(described["name"])),
        described.get("engines") is not None,
        cast(Settings, settings),
        ranges if ranges.is_file() else None,
    )


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST_FILE
    try:
        if file.stat().st_size > MOST_MANIFEST_BYTES:
            raise BundleError(f"{file}: expected at most {MOST_MANIFEST_BYTES} bytes; name the folder of a bundle")
        value = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{folder}: expected a bundle with {MANIFEST_FILE} ({error}); name its folder") from error
    if not isinstance(value, dict):
        raise _unknown("top level", "an object", value)
    return value


def _unknown(where: str, expected: str, found: object) -> BundleError:
    return BundleError(
        f"manifest.json: {where}: expected {expected}, found {show(found)}; build the bundle anew with hart-edge build"
    )
