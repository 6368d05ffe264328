"""The registry: which library serves which target, and that a further library needs only an entry in it."""

from __future__ import annotations

import importlib.metadata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hart_edge.bundle.manifest import Precision, Target
from hart_edge.bundle.verify import open_bundle
from hart_edge.engines.base import Availability, BuildProgress, Entry
from hart_edge.engines.loading import load
from hart_edge.engines.registry import REGISTRY, Registry
from hart_edge.engines.tensorrt.builder import TensorRTBuilder
from hart_edge.engines.tensorrt.facts import TENSORRT_RTX
from hart_edge.errors import BuildError
from hart_edge.export.chain import build
from hart_edge.export.options import BuildOptions
from hart_edge.export.tools import Tools
from hart_edge.runtime.context import Context
from hart_edge.runtime.pipeline import Pipeline
from tests.conftest import GOLDEN, BuildOnce
from tests.engines.fake_library import ARCHITECTURE, VERSION, PackedRunner, entry
from tests.runtime.words_bundle import make_words_bundle

CPU = REGISTRY.library(Target.CPU)


def test_every_target_has_one_entry() -> None:
    assert [entry.target for entry in REGISTRY] == list(Target)
    for target in (Target.TENSORRT, Target.TENSORRT_RTX):
        assert REGISTRY.library(target) is CPU  # it checks the graphs from which engines are built
        assert REGISTRY.builder(target) is REGISTRY[target].builder
    for target in (Target.CPU, Target.CUDA):
        assert REGISTRY.library(target) is REGISTRY[target].library
        message = rf"^target {target}: its graphs run as they are; engines are made for tensorrt and tensorrt-rtx$"
        with pytest.raises(BuildError, match=message):
            REGISTRY.builder(target)


def test_an_entry_has_a_library_or_a_builder() -> None:
    for wrong in ({"library": None}, {"builder": TensorRTBuilder(TENSORRT_RTX)}):
        with pytest.raises(ValueError, match=r"^cpu: expected a library that runs graphs or a builder of engines"):
            replace(REGISTRY[Target.CPU], **wrong)


def test_the_survey_names_every_target_once() -> None:
    without_gpu = replace(REGISTRY[Target.TENSORRT_RTX], builder=TensorRTBuilder(TENSORRT_RTX, gpu=lambda: None))
    found = REGISTRY.replaced(without_gpu).survey()
    assert [each.target for each in found] == list(Target)
    version = importlib.metadata.version("tensorrt-rtx")
    expected = f"tensorrt_rtx {version} builds engines here; they run where there is an NVIDIA driver, and here is none"
    assert found[-1] == Availability(Target.TENSORRT_RTX, False, expected)
    assert found[0].usable


# A further library: tests/engines/fake_library.py stands for its folder, and its registry entries are made here.


@pytest.fixture
def further() -> Registry:
    return REGISTRY.replaced(entry(Target.TENSORRT))


def context(pipeline: Pipeline) -> Context:
    manifest = pipeline.manifest
    tokens = np.random.default_rng(0).standard_normal((manifest.context_tokens, manifest.context_dim))
    return Context(tokens.astype(np.float32), np.arange(manifest.context_tokens) < 5)


def test_a_further_library_builds_a_bundle_and_draws(build_once: BuildOnce, tmp_path: Path, further: Registry) -> None:
    """From a checkpoint to the same picture that ONNX Runtime draws, since its engines contain the same graphs."""
    seen: list[object] = []
    options = BuildOptions(GOLDEN / "adaln", tmp_path / "packed", Precision.FP32, Target.TENSORRT)
    manifest = build(options, seen.append, tools=Tools(registry=further))
    engines = manifest.target.engines
    assert engines is not None and (engines.version, engines.architectures) == (VERSION, (ARCHITECTURE,))
    assert {event.phase for event in seen if isinstance(event, BuildProgress)} == {"packing"}
    assert open_bundle(tmp_path / "packed").manifest == manifest
    drawn, expected = load(tmp_path / "packed", registry=further), load(build_once(GOLDEN / "adaln", Precision.FP32))
    assert isinstance(drawn.runner, PackedRunner)
    pictures = [one.generate(context(one), seed=3).tobytes() for one in (drawn, expected)]
    assert pictures[0] == pictures[1]
    assert set(drawn.runner.opened) == {str(step.graph) for step in manifest.plan.steps}


def test_a_further_library_refuses_a_precision_before_anything_is_read(tmp_path: Path, further: Registry) -> None:
    options = BuildOptions(tmp_path / "nowhere", tmp_path / "packed", Precision.INT8, Target.TENSORRT)
    with pytest.raises(BuildError, match=r"^packing computes in no INT8; use --precision fp16$"):
        build(options, tools=Tools(registry=further))


def test_a_further_library_that_runs_graphs(tmp_path: Path) -> None:
    """The entry of a target opens its bundles of graphs, and the entry's library checks them."""
    opened: list[str] = []

    def open_runner(bundle: object, **options: object) -> object:
        opened.append(f"{options}")
        return REGISTRY[Target.CPU].open_runner(bundle, **options)

    own = REGISTRY[Target.CPU]
    registry = REGISTRY.replaced(Entry(Target.CPU, own.graphs, own.memory, open_runner, library=CPU))
    words = make_words_bundle(tmp_path / "words")
    picture = load(words, threads=1, registry=registry).generate("w1")
    assert picture.tobytes() == load(words, threads=1).generate("w1").tobytes()
    assert opened == ["{'threads': 1, 'low_memory': False}"]


def test_no_registry_changes(further: Registry) -> None:
    assert isinstance(REGISTRY[Target.TENSORRT].builder, TensorRTBuilder)
    assert further[Target.TENSORRT] is not REGISTRY[Target.TENSORRT] and further[Target.CPU] is REGISTRY[Target.CPU]
