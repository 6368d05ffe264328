"""The docstring of every package is its index: it names each module and each sub-package of its folder."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hart_edge"
# Folder by folder, since a glob does not follow the links to runtime/, engines/, calib/ and export/.
PACKAGES = [PACKAGE, *sorted(path.parent for folder in PACKAGE.iterdir() for path in folder.rglob("__init__.py"))]


def contents(package: Path) -> list[str]:
    """`module.py` and `folder/` of everything that can be imported from a package."""
    modules = [path.name for path in package.glob("*.py") if not path.stem.startswith("__")]
    return sorted([*modules, *(f"{path.parent.name}/" for path in package.glob("*/__init__.py"))])


def test_all_packages_are_looked_at() -> None:
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGES}
    assert found >= {
        ".",
        "bundle",
        "runtime",
        "engines/tensorrt",
        "calib/rewrite",
        "export/stages",
        "training/tokenizer",
    }


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_index_names_every_module(package: Path) -> None:
    index = ast.get_docstring(ast.parse((package / "__init__.py").read_text("utf-8"))) or ""
    missing = [name for name in contents(package) if not re.search(rf"(?<![\w/]){re.escape(name)}", index)]
    assert missing == [], f"{package.relative_to(ROOT)}/__init__.py: its docstring does not name {', '.join(missing)}"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_index_has_one_line_for_a_module(package: Path) -> None:
    index = ast.get_docstring(ast.parse((package / "__init__.py").read_text("utf-8"))) or ""
    entries = re.findall(r"^([\w/]+\.py|\w+/)  ", index, re.MULTILINE)
    assert sorted(entries) == sorted(set(entries))
