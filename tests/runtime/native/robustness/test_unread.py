"""Outputs of a graph that no step reads: the C library lets what blocks leave lie in one place."""

from __future__ import annotations

import ctypes
import json
import re
from pathlib import Path

import pytest

from tests.runtime.native.conftest import Build
from tests.runtime.native.library import Handle, load
from tests.runtime.native.robustness.conftest import Runner

Tell = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
Outputs = dict[str, int]  # addresses


def bound_outputs(engine: Path, library: Path, bundle: Path) -> list[Outputs]:
    """The outputs of each run that opening a bundle binds, by an engine that tells them."""
    runs: dict[int, Outputs] = {}

    def tell(binding: int, name: bytes, address: int) -> None:
        runs.setdefault(binding, {})[name.decode()] = address

    told = Tell(tell)
    watched = ctypes.CDLL(str(engine))
    watched.engine_tell_outputs(told)
    Handle(load(library), bundle, wait_for_all=1).close()
    watched.engine_tell_outputs(None)
    return list(runs.values())


def addresses(run: Outputs, kind: str) -> set[int]:
    return {address for name, address in run.items() if re.fullmatch(rf"{kind}\.\d+", name)}


def test_what_blocks_leave_unread_shares_a_place(
    plain: Runner, built: Build, engine: Path, int8_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HART_EDGE_ONNXRUNTIME", str(plain.failing_engine))
    monkeypatch.setenv("HART_EDGE_REAL_ONNXRUNTIME", str(engine))
    runs = [run for run in bound_outputs(plain.failing_engine, built.library, int8_bundle) if "hidden" in run]
    manifest = json.loads((int8_bundle / "manifest.json").read_text())
    plans = [manifest["plan"], *manifest["speeds"].values()]
    last = [run for run in runs if len(addresses(run, "key")) == 1]
    assert len(last) == len(plans)  # that of the last scale, at every speed
    assert len(runs) == len(plans) * len(manifest["patch_nums"])
    read = {each for run in runs if run not in last for each in addresses(run, "key") | addresses(run, "value")}
    for run in last:
        (key,), (value,) = addresses(run, "key"), addresses(run, "value")
        assert key != value
        assert not {key, value} & read
