"""What pyproject.toml cannot say: the wheel of a device, and a source distribution that has the links of the checkout.

HART_EDGE_BUNDLE=FOLDER, which `make wheel` sets, puts that bundle into the wheel and leaves the PyTorch checkpoint out;
without it a wheel has the checkpoint, for workstations, and no bundle (docs/releases.md).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist
from setuptools.errors import OptionError

DEFAULT_BUNDLE = "hart-emoji-int8"  # of hart_edge/api.py
LINKS = ("hart_edge/calib", "hart_edge/engines", "hart_edge/export", "hart_edge/runtime", "hart_edge/door/build.py")


class BuildPy(build_py):
    """The package, with a bundle in the place of the checkpoint where one is named."""

    def run(self) -> None:
        named, package = os.environ.get("HART_EDGE_BUNDLE"), Path(self.build_lib, "hart_edge")
        if named and not Path(named, "manifest.json").is_file():
            raise OptionError(f"HART_EDGE_BUNDLE: expected the folder of a bundle, found none in {named}; make bundle")
        for folder in ("bundles", "models"):  # what an earlier build has left there
            shutil.rmtree(package / folder, ignore_errors=True)
        super().run()
        if named and not self.editable_mode:
            shutil.rmtree(package / "models")
            shutil.copytree(named, package / "bundles" / DEFAULT_BUNDLE)


class Sdist(sdist):
    """The files of MANIFEST.in, and the links that make runtime/ and its neighbours sub-packages."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        for name in LINKS:
            link = Path(base_dir, name)
            link.unlink(missing_ok=True)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.readlink(name))


setup(cmdclass={"build_py": BuildPy, "sdist": Sdist})
