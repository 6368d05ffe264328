"""costs.json: the costs of a bundle's steps are read, and malformed files are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hart_edge.bundle.costs import COSTS_FILE, Costs, GraphCost, StepCost, read_costs, to_json
from hart_edge.bundle.verify import open_bundle
from hart_edge.errors import BundleError
from hart_edge.export.costs import count_costs
from tests.bundle.corrupt_bundles import relist
from tests.bundle.make_bundle import make_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "tiny")


def carry(folder: Path, value: object) -> None:
    """Put costs.json into a bundle and list it in the manifest."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    (folder / COSTS_FILE).write_bytes(data)
    relist(folder, COSTS_FILE)


def test_counted_costs_are_read(folder: Path) -> None:
    bundle = open_bundle(folder)
    assert read_costs(bundle) is None
    counted = count_costs(bundle.manifest, folder)
    assert [each.graph for each in counted.steps] == [str(step.graph) for step in bundle.manifest.plan.steps]
    carry(folder, to_json(counted))
    assert read_costs(open_bundle(folder)) == counted


def test_numbers_of_a_made_up_build(folder: Path) -> None:
    """The numbers of the file are used as they are: nothing is counted again."""
    plan = open_bundle(folder).manifest.plan
    graphs = tuple(GraphCost(name, 10, 2) for name in dict.fromkeys(str(step.graph) for step in plan.steps))
    steps = tuple(StepCost(str(step.graph), step.scale, 100 + i, 1000 + i) for i, step in enumerate(plan.steps))
    carry(folder, to_json(Costs(graphs, steps)))
    assert read_costs(open_bundle(folder)) == Costs(graphs, steps)


def shorter(value: dict[str, Any]) -> object:
    return {**value, "steps": value["steps"][1:]}


def without_graph(value: dict[str, Any]) -> object:
    return {**value, "graphs": value["graphs"][1:]}


def negative(value: dict[str, Any]) -> object:
    return {**value, "steps": [{**value["steps"][0], "macs": -1}, *value["steps"][1:]]}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            shorter,
            r"^costs\.json: expected the \d+ steps of the plan exact, in its order, found \d+ steps, of another one; r",
        ),
        (without_graph, r"^costs\.json: expected every graph of the plans, found "),
        (negative, r"^costs\.json: costs\.steps\[0\]\.macs: expected an integer from 0 to \d+, found -1; rebuild"),
        (lambda _: {"graphs": []}, r"^costs\.json: costs\.steps: expected this key, found none"),
        (lambda _: b"{", r"^costs\.json: expected JSON, found "),
        (lambda _: b"[" * 100_000, r"^costs\.json: expected JSON, found "),
        (lambda _: b" " * (2**24 + 1), r"^costs\.json: expected at most 16777216 bytes, found 16777217"),
    ],
)
def test_impossible_costs_are_refused(folder: Path, spoil: Callable[[dict[str, Any]], object], message: str) -> None:
    value = json.loads(to_json(count_costs(open_bundle(folder).manifest, folder)))
    carry(folder, spoil(value))
    with pytest.raises(BundleError, match=message):
        read_costs(open_bundle(folder))
