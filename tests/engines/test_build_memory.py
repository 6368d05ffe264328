"""A build of engines that needs more memory than this machine has is refused before it begins."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from hart_edge.bundle.manifest import Target, TargetSpec, parse
from hart_edge.bundle.memory import BUILDER_PROCESS
from hart_edge.engines.base import EngineSettings
from hart_edge.engines.bundle_build import EngineJob, build_engines
from hart_edge.errors import BuildError
from tests.bundle.make_bundle import make_bundle


class Untouched:
    """A library that must not be asked to build."""

    def version(self) -> str:
        return "1.7.1.116"

    def check_graphs(self, *given: Any) -> None:
        pass

    def build(self, *given: Any) -> dict[str, Any]:
        raise AssertionError("a build has begun")


def test_a_build_without_enough_memory_is_refused_before_it_begins(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "graphs")
    manifest = parse((folder / "manifest.json").read_bytes())
    portable = dataclasses.replace(manifest, target=TargetSpec(Target.TENSORRT_RTX, None))
    settings = EngineSettings(architectures=("sm_89",), workspace=2**30)
    out = tmp_path / "out" / "engines"
    job = EngineJob(folder, portable, Target.TENSORRT_RTX, out, "tiny", settings, lambda *given: "")
    with pytest.raises(
        BuildError, match=r"building its engine takes 1.37 GiB, found 381 MiB free; close other programs"
    ):
        build_engines(job, Untouched(), print, print, free_memory=lambda: BUILDER_PROCESS)
    assert not out.parent.exists()  # nothing was made
    with pytest.raises(AssertionError, match="a build has begun"):
        build_engines(job, Untouched(), print, print, free_memory=lambda: 2**33)
