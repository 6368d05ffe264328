"""The import directions of the design's folder table, held against the source of every file.

Imports inside functions count, and so do importlib.import_module("...") and __import__("...") of a literal. What stands
under `if __name__ == "__main__"` does not: a module run as a command may go on to what imports it.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("hart_edge", "export", "calib", "engines", "runtime")
OURS = (*PACKAGES, "tests", "benchmarks", "examples")

# What a package may import of ours, besides itself: a module, and everything below it.
# The bundle's format, what refuses it, and arithmetic on it.
FORMAT = ("runtime.manifest", "runtime.plan", "runtime.program", "runtime.arena", "runtime.errors", "runtime.memory")
FORMAT += ("runtime.allocator",)
ALLOWED = {
    "runtime": (),
    "engines": (*FORMAT, "runtime.onnxruntime_library"),
    "calib": ("hart_edge", "engines", *FORMAT),
    "export": ("hart_edge", "calib", "engines", *FORMAT),
    "hart_edge": ("export", "calib", "engines", "runtime"),
}
# What runs on a device must not need what only a workstation has.
SLIM = ("runtime", "engines")
HEAVY = ("torch", "onnx", "transformers")


def imported_modules(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of every import; `from package import submodule` names the submodule."""
    package = path.relative_to(root).parts[:-1]
    tree = ast.parse(path.read_text("utf-8"), str(path))
    tree.body = [node for node in tree.body if not is_main_block(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            for alias in node.names:
                folder = root.joinpath(*base)
                is_module = (folder / alias.name).is_dir() or (folder / f"{alias.name}.py").is_file()
                yield node.lineno, ".".join([*base, alias.name] if is_module else base)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).split(".")[-1]
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def is_main_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" and not node.orelse


def violations(root: Path) -> list[str]:
    """One line per import that the folder table forbids: file:line: package may not import module."""
    found = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            for line, module in imported_modules(path, root):
                top = module.split(".")[0]
                allowed = any(module == name or module.startswith(f"{name}.") for name in ALLOWED[package])
                ours = top in OURS and top != package and not allowed
                if ours or (package in SLIM and top in HEAVY):
                    file = path.relative_to(root).as_posix()
                    found.append(f"{file}:{line}: {package} may not import {module}")
    return found


def test_import_directions() -> None:
    checked = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert ROOT / "runtime" / "random.py" in checked
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "source", "found"),
    [
        ("runtime/loop.py", "import torch", "1: runtime may not import torch"),
        ("runtime/loop.py", "import engines.ort", "1: runtime may not import engines.ort"),
        ("runtime/deep/x.py", "from ...engines import ort", "1: runtime may not import engines"),
        ("engines/ort.py", "def f():\n    import onnx.helper", "2: engines may not import onnx.helper"),
        ("engines/ort.py", "import transformers as t", "1: engines may not import transformers"),
        ("engines/ort.py", "from runtime import loop", "1: engines may not import runtime.loop"),
        ("engines/ort.py", "from runtime import VERSION", "1: engines may not import runtime"),
        ("engines/ort.py", "import numpy, calib", "1: engines may not import calib"),
        ("calib/a.py", "from export.build import main", "1: calib may not import export.build"),
        ("calib/a.py", "from runtime import manifest, loop", "1: calib may not import runtime.loop"),
        ("calib/a.py", "if __name__ == 'main':\n    import export.b", "2: calib may not import export.b"),
        ("export/a.py", "from runtime.loop import run", "1: export may not import runtime.loop"),
        ("export/a.py", "x = import_module('runtime.loop')", "1: export may not import runtime.loop"),
        ("hart_edge/a.py", "from tests import tiny", "1: hart_edge may not import tests"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, file: str, source: str, found: str) -> None:
    made_up_tree(tmp_path, file, source)
    assert violations(tmp_path) == [f"{file}:{found}"]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("runtime/loop.py", "import numpy\nimport onnxruntime\nfrom . import manifest"),
        ("runtime/loop.py", "from runtime.errors import EngineError"),
        ("engines/ort.py", "from runtime import errors, manifest\nimport runtime.manifest"),
        ("engines/ort.py", "import onnxruntime"),
        ("calib/a.py", "import torch, onnx\nfrom hart_edge.model import x\nfrom engines import y"),
        ("calib/a.py", "if __name__ == '__main__':\n    from export.b import main"),
        ("export/a.py", "from calib import x\nfrom runtime.manifest import Manifest\nimport hart_edge"),
        ("hart_edge/a.py", "import runtime.loop, export, calib, engines, torch"),
    ],
)
def test_what_is_allowed_is_not_found(tmp_path: Path, file: str, source: str) -> None:
    made_up_tree(tmp_path, file, source)
    assert violations(tmp_path) == []


def made_up_tree(root: Path, file: str, source: str) -> None:
    for name in ("runtime/loop.py", "runtime/manifest.py", "runtime/errors.py", file):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source if name == file else "", "utf-8")
