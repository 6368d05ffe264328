"""The options of sampling settings: --cfg-scale X and its like, made of what hart_edge/bundle/settings.py declares."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import cast

from hart_edge.bundle.settings import SETTINGS, Settings, Speed, kind


def add_setting_arguments(p: argparse.ArgumentParser, whose: str, names: Sequence[str] = tuple(SETTINGS)) -> None:
    """whose: the settings that hold where an option is left out, as in "the bundle's"."""
    for name in names:
        option, text = "--" + name.replace("_", "-"), f"{SETTINGS[name].meaning} (default: {whose})"
        if kind(name) is bool:
            p.add_argument(option, action=argparse.BooleanOptionalAction, help=text)
        elif kind(name) is Speed:
            p.add_argument(option, type=str, choices=[*map(str, Speed)], help=text)
        else:
            p.add_argument(option, type=kind(name), metavar=SETTINGS[name].metavar, help=text)


def settings_of(a: argparse.Namespace, names: Sequence[str] = tuple(SETTINGS)) -> Settings:
    """What was asked for, None where an option was left out."""
    return cast(Settings, {name: getattr(a, name) for name in names})
