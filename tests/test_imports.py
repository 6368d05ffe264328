"""The import directions of docs/architecture.md, compared with the source of every file.

    errors <- bundle <- runtime <- engines <- calib <- export <- evaluation, training, checks <- cli
                                           <- server, batch <- cli

A room may import from rooms before it and from none after it (tests/import_graph.py says what counts as an import).
"""

from pathlib import Path

import pytest

from tests.draw_architecture import DRAWING, draw
from tests.import_graph import PACKAGE, imported_modules, imports_by_room, rooms

ROOT = Path(__file__).parents[1]
OURS = (PACKAGE, "export", "engines", "runtime", "calib", "tests", "benchmarks", "examples")

# What a room may import of hart_edge besides itself: a room or a module, and everything below it.
FORMAT = ("errors", "units", "staging", "bundle")
DEVICE = (*FORMAT, "runtime", "engines")
WORKSTATION = (*DEVICE, "reference", "calib", "export", "data")
ALLOWED = {
    "errors": (),
    "units": ("errors",),
    "staging": (),
    "bundle": ("errors", "units", "staging"),
    "runtime": FORMAT,
    "engines": (*FORMAT, "runtime"),
    "api": DEVICE,
    "server": (*DEVICE, "api"),
    "reference": (*FORMAT, "runtime.random"),
    "calib": DEVICE,
    "export": (*DEVICE, "reference", "calib"),
    "data": ("errors", "staging"),
    "batch": (*DEVICE, "data"),
    "evaluation": WORKSTATION,
    "training": (*WORKSTATION, "evaluation"),  # it trains the evaluator of evaluation
    "checks": WORKSTATION,
    "cli": (*WORKSTATION, "api", "server", "batch", "evaluation", "training", "checks"),
}
# Code that runs on a device must not import packages that only a workstation has.
SLIM = ("errors", "units", "staging", "bundle", "runtime", "engines", "api", "server")
HEAVY = ("torch", "onnx", "transformers")


def violations(root: Path) -> list[str]:
    """One line per import that the directions forbid: file:line: room may not import module."""
    found = []
    for room, path in rooms(root):
        for line, module in imported_modules(path, root):
            top, _, inner = module.partition(".")
            file = path.relative_to(root).as_posix()
            if top == PACKAGE:
                names = ("", room, *ALLOWED.get(room, ()))
                allowed = any(inner == name or inner.startswith(f"{name}.") for name in names)
            else:
                allowed = top not in OURS and not (room in SLIM and top in HEAVY)
            if not allowed:
                found.append(f"{file}:{line}: {room} may not import {module}")
    return found


@pytest.mark.long
def test_import_directions() -> None:
    checked = [path for _, path in rooms(ROOT)]
    for file in ("runtime/random.py", "export/graphs.py", "engines/base.py", "calib/scheme.py"):
        assert ROOT / PACKAGE / file in checked
    assert {room for room, _ in rooms(ROOT)} == set(ALLOWED)
    assert violations(ROOT) == []


@pytest.mark.long
def test_the_drawing_shows_the_present_imports() -> None:
    message = "docs/images/architecture.svg shows other imports; draw it again: python -m tests.draw_architecture"
    assert DRAWING.read_text("utf-8") == draw(imports_by_room(ROOT)), message


@pytest.mark.parametrize(
    ("file", "source", "found"),
    [
        ("runtime/loop.py", "import torch", "1: runtime may not import torch"),
        ("runtime/loop.py", "import runtime.random", "1: runtime may not import runtime.random"),
        ("runtime/deep/x.py", "from ...engines import base", "1: runtime may not import hart_edge.engines.base"),
        ("engines/ort.py", "def f():\n    import onnx.helper", "2: engines may not import onnx.helper"),
        ("engines/ort.py", "import transformers as t", "1: engines may not import transformers"),
        ("engines/ort.py", "import numpy, hart_edge.calib", "1: engines may not import hart_edge.calib"),
        ("bundle/a.py", "from hart_edge.runtime import loop", "1: bundle may not import hart_edge.runtime.loop"),
        ("calib/a.py", "import hart_edge.export.chain", "1: calib may not import hart_edge.export.chain"),
        ("export/a.py", "x = import_module('hart_edge.cli')", "1: export may not import hart_edge.cli"),
        ("evaluation/a.py", "from hart_edge import training", "1: evaluation may not import hart_edge.training"),
        (
            "reference/a.py",
            "from hart_edge.runtime.loop import x",
            "1: reference may not import hart_edge.runtime.loop",
        ),
        ("cli/a.py", "from tests import tiny", "1: cli may not import tests"),
    ],
)
def test_a_violation_is_found(tmp_path: Path, file: str, source: str, found: str) -> None:
    make_tree(tmp_path, file, source)
    assert violations(tmp_path) == [f"{PACKAGE}/{file}:{found}"]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("runtime/loop.py", "import numpy\nfrom hart_edge.bundle import plan\nfrom . import random"),
        ("engines/ort.py", "import onnxruntime\nfrom hart_edge.runtime.loop import Runner"),
        ("reference/a.py", "import torch\nfrom hart_edge.runtime.random import uniform"),
        ("training/a.py", "import torch, hart_edge\nfrom hart_edge.evaluation import judge"),
        ("cli/a.py", "import hart_edge.runtime.loop, hart_edge.export, torch"),
        ("export/build.py", "from hart_edge.cli.main import main"),  # the build command
    ],
)
def test_allowed_imports_are_no_violations(tmp_path: Path, file: str, source: str) -> None:
    make_tree(tmp_path, file, source)
    assert violations(tmp_path) == []


def make_tree(root: Path, file: str, source: str) -> None:
    others = ("runtime/loop.py", "training/task.py", "engines/base.py", "cli/main.py", "calib/scheme.py")
    for name in (*others, file):
        path = root / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source if name == file else "", "utf-8")
