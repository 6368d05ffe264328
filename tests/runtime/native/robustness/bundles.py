"""Bundles for the programs of this folder: two complete ones, and every spoilt one of corrupt_bundles.py."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from tests.bundle.corrupt_bundles import CORRUPTIONS
from tests.bundle.make_bundle import make_bundle
from tests.runtime.native.letters_bundle import make_letters_bundle
from tests.runtime.native.robustness.context_bundle import make_context_bundle


@dataclass(frozen=True)
class Bundles:
    prompts: Path
    contexts: Path
    corrupt: Path  # each is NAME/around/bundle, since some edits put files beside the bundle


def make_bundles(folder: Path) -> Bundles:
    whole = make_bundle(folder / "whole")
    for name, corruption in CORRUPTIONS.items():
        corruption.edit(Path(shutil.copytree(whole, folder / "corrupt" / name / "around" / "bundle")))
    return Bundles(
        make_letters_bundle(folder / "prompts"), make_context_bundle(folder / "contexts"), folder / "corrupt"
    )
