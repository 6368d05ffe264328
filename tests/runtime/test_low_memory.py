"""Low memory: graphs are unloaded after their last step and loaded again; the pictures are the same."""

from pathlib import Path

import pytest

from hart_edge.bundle.verify import open_bundle
from hart_edge.cli.main import main
from hart_edge.engines.loading import load
from hart_edge.engines.onnxruntime.runner import OnnxRuntimeRunner
from hart_edge.runtime.pipeline import Pipeline
from tests.runtime.words_bundle import make_words_bundle


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words_bundle(tmp_path_factory.mktemp("low") / "words")


def test_the_same_pictures(words: Path) -> None:
    usual, low = load(words), load(words, low_memory=True)
    for seed in range(3):
        pair = [one.generate("w1 w2", seed=seed).tobytes() for one in (usual, low)]
        assert pair[0] == pair[1]


def test_a_graph_is_loaded_from_its_first_step_to_its_last(words: Path) -> None:
    pipeline = load(words, low_memory=True)
    runner = pipeline.runner
    assert isinstance(runner, OnnxRuntimeRunner)
    held: list[set[str]] = []
    run = runner.run

    def watch(graph: str, *given: object) -> None:
        run(graph, *given)
        held.append(set(runner.open_graphs))

    runner.run = watch
    pipeline.generate("w1")
    loop = {"transformer", "tokens", "latent"}
    assert held == [
        {"text_model"},
        {"transformer"}, {"transformer", "tokens"}, loop,
        loop, {"tokens", "latent"}, {"latent"},
        {"decoder"},
    ]  # fmt: skip
    assert runner.open_graphs == frozenset()


def test_the_library_keeps_no_memory_between_runs(words: Path) -> None:
    """Small bundles have no arena, large ones have one that lasts for a run. The picture is the same."""
    pipeline = load(words)
    assert isinstance(pipeline.runner, OnnxRuntimeRunner)
    assert not pipeline.runner._options.enable_cpu_mem_arena and not pipeline.runner._options.enable_mem_pattern
    bundle = open_bundle(words)
    with_arena = Pipeline(bundle, OnnxRuntimeRunner(bundle, arena_from=1))
    assert isinstance(with_arena.runner, OnnxRuntimeRunner)
    assert with_arena.runner._options.enable_cpu_mem_arena and not with_arena.runner._options.enable_mem_pattern
    assert pipeline.runner._options.enable_mem_reuse and not with_arena.runner._options.enable_mem_reuse
    setting = with_arena.runner._run_options.get_run_config_entry("memory.enable_memory_arena_shrinkage")
    assert setting == "cpu:0"
    apart = with_arena.runner._options.get_session_config_entry("session.use_device_allocator_for_initializers")
    assert apart == "1"  # weights are not in the arena of a run
    assert with_arena.generate("w1").tobytes() == pipeline.generate("w1").tobytes()


def test_on_the_command_line(words: Path, tmp_path: Path) -> None:
    for option in ([], ["--low-memory"]):
        out = str(tmp_path / f"{len(option)}.png")
        assert main(["generate", "w1", "--bundle", str(words), "--out", out, *option]) == 0
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()
