"""A build of engines that this machine's memory cannot hold ends before it begins."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from hart_edge.bundle.manifest import Target, TargetSpec, parse
from hart_edge.bundle.memory import BUILDER_PROCESS
from hart_edge.engines import bundle_build
from hart_edge.engines.base import EngineSettings
from hart_edge.engines.bundle_build import EngineJob, build_engines
from hart_edge.errors import BuildError
from tests.bundle.make_bundle import make_bundle


class Untouched:
    """A library that must not be asked to build."""

    def version(self) -> str:
        return "1.7.1.116"

    def build(self, *given: Any) -> dict[str, Any]:
        raise AssertionError("a build has begun")


def test_refused_before_it_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_bundle(tmp_path / "graphs")
    manifest = parse((folder / "manifest.json").read_bytes())
    portable = dataclasses.replace(manifest, target=TargetSpec(Target.TENSORRT_RTX, None))
    settings = EngineSettings(architectures=("sm_89",), workspace=2**30)
    out = tmp_path / "out" / "engines"
    job = EngineJob(folder, portable, Target.TENSORRT_RTX, out, "tiny", settings, lambda *given: "")
    monkeypatch.setattr(bundle_build, "available_memory", lambda: BUILDER_PROCESS)
    with pytest.raises(
        BuildError, match=r"building its engine takes 1.4 GiB, found 0.4 GiB free; close other programs"
    ):
        build_engines(job, Untouched(), print, print)
    assert not out.parent.exists()  # nothing was made
    monkeypatch.setattr(bundle_build, "available_memory", lambda: 2**33)
    with pytest.raises(AssertionError, match="a build has begun"):
        build_engines(job, Untouched(), print, print)
