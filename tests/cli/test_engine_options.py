"""Options of engine builds, as users type them."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from hart_edge.bundle.manifest import HardwareCompatibility
from hart_edge.cli.engine_options import add_engine_arguments, architecture, engine_settings
from hart_edge.cli.values import bytes_of, whole
from hart_edge.engines.base import EngineSettings


def test_settings() -> None:
    parser = argparse.ArgumentParser()
    add_engine_arguments(parser)
    assert engine_settings(parser.parse_args([])) == EngineSettings()
    line = "--architectures 8.6 sm_120 --images 4 --workspace 512MiB --hardware-compatibility ampere-plus "
    line += "--version-compatible --timing-cache t"
    assert engine_settings(parser.parse_args(line.split())) == EngineSettings(
        ("sm_86", "sm_120"), 4, 2**29, HardwareCompatibility.AMPERE_PLUS, True, Path("t")
    )


def test_architectures() -> None:
    assert [architecture(text) for text in ("sm_86", "SM86", "8.9", "120", "12.1")] == [
        "sm_86",
        "sm_86",
        "sm_89",
        "sm_120",
        "sm_121",
    ]


def test_malformed_settings_are_refused() -> None:
    for read, text, message in (
        (bytes_of, "big", "expected a size such as 2GiB, 512MiB or 4GB, found 'big'"),
        (bytes_of, "8", "expected a size with its unit, such as 8GiB, or 8B for bytes, found '8'"),
        (architecture, "ada", "expected a GPU architecture such as sm_86, found 'ada'"),
        (whole(1, 1024), "0", "expected an integer from 1 to 1024, found '0'"),
        (whole(1), "-3", "expected 1 or more, found '-3'"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=f"^{message}$"):
            read(text)
