"""Who imports whom: every import of the package, by room. A room is a folder of hart_edge/, or a file that lies in it.

In: the checkout. Out: what tests/test_imports.py compares with the directions, and tests/draw_architecture.py draws.
Imports inside functions count, and so do importlib.import_module("...") and __import__("...") of a literal.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "hart_edge"
DOORS = (
    "door/build.py",
    "export/build.py",
)  # one file: `python -m export.build` in an installation and in the checkout


def rooms(root: Path) -> Iterator[tuple[str, Path]]:
    """(room, file) of every Python file of the package, but for its __init__ and __main__, and of export/build.py."""
    doors = {root / PACKAGE / name for name in DOORS}
    for path in sorted((root / PACKAGE).glob("*")):
        if path.is_dir():
            yield from ((path.name, file) for file in sorted(path.rglob("*.py")) if file not in doors)
        elif path.suffix == ".py" and not path.stem.startswith("__"):
            yield path.stem, path


def imported_modules(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of every import of a file; `from package import submodule` names the submodule."""
    package = path.relative_to(root).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            base += node.module.split(".") if node.module else []
            names = {".".join([*base, alias.name] if is_module(root.joinpath(*base, alias.name)) else base)
                     for alias in node.names}  # fmt: skip
            yield from ((node.lineno, name) for name in sorted(names))
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).split(".")[-1]
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def is_module(path: Path) -> bool:
    return path.is_dir() or path.with_suffix(".py").is_file()


def room_of(module: str) -> str | None:
    """The room that a module belongs to; None for the package itself and for other packages."""
    top, _, inner = module.partition(".")
    return inner.split(".")[0] if top == PACKAGE and inner else None


def imports_by_room(root: Path) -> dict[tuple[str, str], int]:
    """How many import statements of a room name another: (importing room, imported room) -> count."""
    found: dict[tuple[str, str], int] = {}
    for room, path in rooms(root):
        for _, module in imported_modules(path, root):
            other = room_of(module)
            if other is not None and other != room:
                found[room, other] = found.get((room, other), 0) + 1
    return found
