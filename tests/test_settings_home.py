"""Sampling settings are declared in hart_edge/bundle/settings.py: no other code of the package spells them out."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import typing
from pathlib import Path
from typing import Literal

import pytest

import hart_edge
from hart_edge.bundle import settings
from hart_edge.bundle.settings import DEFAULTS, NAMES, PER_SCALE, SETTINGS, Sampling, Setting, Settings, Speed
from hart_edge.cli.main import parser
from hart_edge.cli.setting_options import settings_of
from hart_edge.reference.sampling import published_sampling
from hart_edge.runtime.pipeline import Pipeline

ROOT = Path(hart_edge.__file__).parent
# Files that may name single settings. A further setting needs changes in the first group only.
DRAWING = {
    "bundle/settings.py", "export/token_graphs.py", "export/latent_graphs.py", "reference/sampling.py",
    "reference/hart.py",
}  # fmt: skip
OWN_USE = {
    "export/plan_builder.py": "guidance is off where a speed leaves the unconditional branch out",
    "export/parity/contexts.py": "logits are compared without guidance",
    "export/parity/quality.py": "figures are taken without guidance",
    "calib/select/sensitivity.py": "logits are compared without guidance",
    "checks/golden.py": "records are of an argmax",
    "checks/golden_bundle.py": "records are of an argmax",
    "training/transformer/task.py": "the sheet of a run is drawn at guidance 3",
}


def names_in(path: Path) -> set[str]:
    """Settings that a file's code names: as an attribute, keyword, parameter, or a string of just the name.

    A local variable may have any name: it holds no fact about a setting that one of these did not give it.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        words = [getattr(node, part, None) for part in ("attr", "arg", "value")]
        found |= {word for word in words if isinstance(word, str)}
    return found & set(NAMES)


@pytest.mark.long
def test_no_other_file_names_a_setting() -> None:
    files = {path.relative_to(ROOT).as_posix(): path for path in sorted(ROOT.rglob("*.py"))}
    for folder in ("runtime", "engines", "calib", "export"):  # links, which rglob does not follow everywhere
        for path in sorted((ROOT / folder).resolve().rglob("*.py")):
            files[f"{folder}/{path.relative_to((ROOT / folder).resolve()).as_posix()}"] = path
    found = {name for name, path in files.items() if names_in(path)}
    assert found == DRAWING | set(OWN_USE)


def test_keywords_and_fields_are_the_same_settings() -> None:
    """Settings types the keywords as the fields of Sampling declare them: for a table, the value for every scale."""
    hints, keywords = typing.get_type_hints(Sampling), typing.get_type_hints(Settings)
    assert list(keywords) == list(SETTINGS)
    for name, hint in keywords.items():
        own = typing.get_args(hints[name])[0] if name in PER_SCALE else hints[name]
        asked = own | Literal["exact", "balanced", "fast"] if own is Speed else own  # its words serve as well
        assert hint == asked | None and settings.kind(name) is own
    declared = {each.name for each in dataclasses.fields(Sampling) if "setting" in each.metadata}
    assert declared == set(SETTINGS) and all(isinstance(each, Setting) for each in SETTINGS.values())


def test_every_default_is_in_its_own_range() -> None:
    sampling = published_sampling(14, 4096)
    assert [settings.refusal(name, getattr(sampling, name)) for name in DEFAULTS] == [None] * len(DEFAULTS)


def test_help_names_every_setting_and_what_it_means() -> None:
    for function in (hart_edge.generate, Pipeline.generate, Pipeline.stream):
        parameters = inspect.signature(function).parameters
        for name, setting in SETTINGS.items():
            assert parameters[name].default is None and parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
            assert setting.meaning in (function.__doc__ or "")


def test_every_setting_is_an_option() -> None:
    options = [f"--{name.replace('_', '-')}" for name in SETTINGS if settings.kind(name) is not bool]
    values = {option: "fast" if option == "--speed" else "1" for option in options}
    a = parser().parse_args(["generate", "w", *itertools.chain(*values.items())])
    asked = settings_of(a)
    assert list(asked) == list(SETTINGS)
    assert [value for name, value in asked.items() if settings.kind(name) is not bool] == [1, 1, 1, "fast"]
