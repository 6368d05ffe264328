"""The import directions of docs/architecture.md, held against the source of every file.

    errors <- bundle <- runtime <- engines <- calib <- export <- evaluation, training, checks <- cli

A room imports from those before it and from none after it. Imports inside functions count, and so do
importlib.import_module("...") and __import__("...") of a literal.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "hart_edge"
OURS = (PACKAGE, "export", "engines", "runtime", "calib", "tests", "benchmarks", "examples")

# What a room may import of ours besides itself: a room or a module, and everything below it.
FORMAT = ("errors", "units", "bundle")
DEVICE = (*FORMAT, "runtime", "engines")
WORKSTATION = (*DEVICE, "reference", "calib", "export", "data")
ALLOWED = {
    "errors": (),
    "units": ("errors",),
    "bundle": ("errors", "units"),
    "runtime": FORMAT,
    "engines": (*FORMAT, "runtime"),
    "api": DEVICE,
    "reference": (*FORMAT, "runtime.random"),
    "calib": DEVICE,
    "export": (*DEVICE, "reference", "calib"),
    "data": ("errors",),
    "evaluation": WORKSTATION,
    "training": (*WORKSTATION, "evaluation"),  # it trains the judge of evaluation
    "checks": WORKSTATION,
    "cli": (*WORKSTATION, "api", "evaluation", "training", "checks"),
}
# What runs on a device must not need what only a workstation has.
SLIM = ("errors", "units", "bundle", "runtime", "engines", "api")
HEAVY = ("torch", "onnx", "transformers")


def imported_modules(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """(line, absolute module) of every import; `from package import submodule` names the submodule."""
    package = path.relative_to(root).parts[:-1]
    tree = ast.parse(path.read_text("utf-8"), str(path))
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


def rooms(root: Path) -> Iterator[tuple[str, Path]]:
    """(room, file) of every Python file of the package but its own __init__, __main__ and doors."""
    for path in sorted((root / PACKAGE).glob("*")):
        if path.is_dir():
            yield from ((path.name, file) for file in sorted(path.rglob("*.py")))
        elif path.suffix == ".py" and not path.stem.startswith("__"):
            yield path.stem, path


def violations(root: Path) -> list[str]:
    """One line per import that the drawing forbids: file:line: room may not import module."""
    found = []
    for room, path in rooms(root):
        for line, module in imported_modules(path, root):
            top, _, inner = module.partition(".")
            file = path.relative_to(root).as_posix()
            if top == PACKAGE:
                if not inner or inner.split(".")[0] == room:
                    continue
                names = ALLOWED.get(room, ())
                allowed = any(inner == name or inner.startswith(f"{name}.") for name in names)
            else:
                allowed = top not in OURS and not (room in SLIM and top in HEAVY)
            if not allowed:
                found.append(f"{file}:{line}: {room} may not import {module}")
    return found


def test_import_directions() -> None:
    checked = [path for _, path in rooms(ROOT)]
    for file in ("runtime/random.py", "export/graphs.py", "engines/base.py", "calib/scheme.py"):
        assert ROOT / PACKAGE / file in checked
    assert {room for room, _ in rooms(ROOT)} - {"door"} == set(ALLOWED)
    assert violations(ROOT) == []
