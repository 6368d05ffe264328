"""Which graphs a parity check has open at the same time: those of the loop, which alternate, and one other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from hart_edge.bundle.plan import ComponentName, Plan, Step
from hart_edge.export.parity.sessions import Sessions

CALLS = ["text_model", "context", "transformer", "tokens", "transformer", "tokens", "residual", "decoder"]


class Library:
    """Opens nothing, but counts the sessions that are alive."""

    def __init__(self) -> None:
        self.opened, self.alive = list[str](), set[str]()

    def open(self, graph: Path, *, in_order: bool = False) -> Any:
        library, name = self, graph.stem

        class Session(SimpleNamespace):
            def __del__(self) -> None:
                library.alive.discard(name)

        self.opened.append(name)
        self.alive.add(name)
        return Session(name=name)


def test_one_graph_besides_those_of_the_loop() -> None:
    plan = Plan({}, tuple(Step(ComponentName(name), None, {}, {}, False) for name in CALLS))
    paths: Mapping[str, Path] = {name: Path(f"{name}.onnx") for name in [*dict.fromkeys(CALLS), "encoder"]}
    library = Library()
    sessions = Sessions(paths, library, [plan])
    assert list(sessions) == list(paths) and len(sessions) == 7 and library.opened == []
    held = []
    for name in [*CALLS, "encoder", *CALLS[:4]]:
        assert sessions[name].name == name
        held.append(sorted(library.alive))
    loop = ["tokens", "transformer"]
    assert held == [
        ["text_model"], ["context"], ["transformer"], loop, loop, loop, ["residual", *loop], ["decoder", *loop],
        ["encoder", *loop], ["text_model", *loop], ["context", *loop], ["context", *loop], ["context", *loop],
    ]  # fmt: skip
    assert library.opened == [*dict.fromkeys(CALLS), "encoder", "text_model", "context"]
