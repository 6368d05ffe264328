"""The arithmetic of the memory planner on the tiny bundle, where every number can be added up by hand."""

import dataclasses
from pathlib import Path

import pytest

from hart_edge.bundle.limits import Memory
from hart_edge.bundle.manifest import Manifest, Precision, Target, TargetSpec, parse
from hart_edge.bundle.memory import (
    BUILDER_PROCESS,
    Constants,
    advice,
    cache_bytes,
    cache_peak,
    fits,
    forecast,
    least_memory,
    require_build_memory,
    shortage,
    shortage_told,
)
from hart_edge.bundle.program import make_program
from hart_edge.engines.registry import REGISTRY
from hart_edge.errors import BuildError, OutOfMemoryError
from hart_edge.units import binary_size as size
from tests.bundle.make_bundle import make_bundle
from tests.runtime.words_bundle import add_context_step, make_words_bundle

MB = 10**6
CPU, CUDA, TENSORRT = (REGISTRY[each].memory for each in (Target.CPU, Target.CUDA, Target.TENSORRT))
WEIGHTS = {"text_model": 60 * MB, "transformer": 40 * MB, "tokens": 3 * MB, "latent": 2 * MB, "decoder": 30 * MB}
NODES = {"text_model": 200, "transformer": 400, "tokens": 20, "latent": 10, "decoder": 100}
HELD = {name: count + NODES[name] * 5_000 for name, count in WEIGHTS.items()}  # on a CPU
CONSTANTS = {name: Constants(count, NODES[name]) for name, count in WEIGHTS.items()}
ACTIVATIONS = {
    ("text_model", None): 5 * MB,
    ("transformer", 0): 1 * MB,
    ("transformer", 1): 8 * MB,
    ("tokens", 0): 2 * MB,
    ("tokens", 1): 3 * MB,
    ("latent", 0): 1 * MB,
    ("latent", 1): 1 * MB,
    ("decoder", None): 20 * MB,
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return weights_inside(tmp_path_factory.mktemp("memory"))


def weights_inside(folder: Path) -> Manifest:
    """The manifest of the tiny bundle without the file of weights beside a graph."""
    whole = parse((make_bundle(folder / "tiny") / "manifest.json").read_bytes())
    inside = {name: entry for name, entry in whole.files.items() if not name.endswith(".data")}
    return dataclasses.replace(whole, files=inside)


def of_target(manifest: Manifest, target: Target) -> Manifest:
    return dataclasses.replace(manifest, target=TargetSpec(target, None))


def test_graphs_on_a_cpu_keep_weights_and_nodes_and_no_activations(manifest: Manifest) -> None:
    """The decoder is opened last, while all others are loaded."""
    found = forecast(manifest, CPU, CONSTANTS, ACTIVATIONS, low_memory=False)
    base = CPU.process + sum(HELD.values()) + make_program(manifest.plan, manifest.components).size + found.prompts
    opened = int(2.5 * 30 * MB) - HELD["decoder"]
    assert [each.total - base for each in found.scales] == [
        int(2.5 * 60 * MB) - sum(HELD.values()),  # the text model, which is opened before the others
        HELD["text_model"] + int(2.5 * 40 * MB) - sum(HELD.values()),
        8 * MB,
        opened,
    ]
    assert found.peak == base + opened and found.measured
    last = found.scales[-1]
    assert (last.weights, last.activations) == (sum(HELD.values()) + opened, 0)
    assert [each.weights for each in found.components] == list(HELD.values())


def test_weights_beside_a_graph_are_not_copied_while_it_is_opened(manifest: Manifest) -> None:
    name = next(each.file for each in manifest.components if each.name == "decoder")
    beside = dataclasses.replace(manifest, files={**manifest.files, f"{name}.data": manifest.files[name]})
    inside, found = (
        forecast(each, CPU, CONSTANTS, ACTIVATIONS, low_memory=False).scales[-1] for each in (manifest, beside)
    )
    assert found.weights == sum(HELD.values()) and found.activations == 20 * MB
    assert inside.total - found.total == int(2.5 * 30 * MB) - HELD["decoder"] - 20 * MB


def test_graphs_on_a_gpu_keep_the_largest_scale_of_each_twice(manifest: Manifest) -> None:
    found = forecast(of_target(manifest, Target.CUDA), CUDA, CONSTANTS, ACTIVATIONS, low_memory=False)
    held = CUDA.process + sum(WEIGHTS.values()) + found.buffers + found.prompts
    assert [each.total for each in found.scales] == [held + 2 * (5 + 8 + 3 + 1 + 20) * MB] * 4 and not found.measured
    assert {each.name: (each.activations, each.scale) for each in found.components} == {
        "text_model": (10 * MB, None),
        "transformer": (16 * MB, 1),
        "tokens": (6 * MB, 1),
        "latent": (2 * MB, 0),
        "decoder": (40 * MB, None),
    }


def test_low_memory_keeps_only_the_graphs_in_use(manifest: Manifest) -> None:
    found = forecast(manifest, CPU, CONSTANTS, ACTIVATIONS, low_memory=True)
    base = CPU.process + found.prompts
    loop = HELD["transformer"] + HELD["tokens"] + HELD["latent"]
    assert [each.total - each.buffers - base for each in found.scales] == [
        int(2.5 * 60 * MB),  # the text model, while it is opened
        int(2.5 * 40 * MB),  # the transformer
        loop + 8 * MB,  # the three graphs of the loop stay loaded until the last scale ends
        int(2.5 * 30 * MB),  # the decoder, when no other graph is loaded
    ]
    assert found.peak == max(each.total for each in found.scales)


def test_with_low_memory_a_cpu_has_only_the_buffers_that_were_written(manifest: Manifest) -> None:
    program = make_program(manifest.plan, manifest.components)
    written = [program.written(index) for index in range(len(manifest.plan.steps))]
    assert written == sorted(written) and 0 < written[0] < written[-1] <= program.size
    low, usual = (forecast(manifest, CPU, CONSTANTS, ACTIVATIONS, low_memory=each) for each in (True, False))
    gpu = forecast(of_target(manifest, Target.CUDA), CUDA, CONSTANTS, ACTIVATIONS, low_memory=True)
    assert low.scales[0].buffers == written[0]
    assert {each.buffers for each in (*usual.scales, *gpu.scales)} == {program.size}


def test_engines_share_one_block_of_activations(manifest: Manifest) -> None:
    found = forecast(of_target(manifest, Target.TENSORRT), TENSORRT, CONSTANTS, ACTIVATIONS, low_memory=False)
    assert found.peak == TENSORRT.process + sum(WEIGHTS.values()) + 20 * MB + found.buffers + found.prompts
    assert not found.measured


def test_of_prompts_a_gpu_with_engines_keeps_contexts_alone(manifest: Manifest) -> None:
    """As every target does with low_memory."""
    contexts = 16 * manifest.plan.buffers["context"].bytes_per_image
    for rules, low_memory in ((TENSORRT, False), (TENSORRT, True), (CPU, True)):
        assert forecast(manifest, rules, CONSTANTS, ACTIVATIONS, low_memory=low_memory).prompts == contexts
    assert forecast(manifest, CPU, CONSTANTS, ACTIVATIONS, low_memory=False).prompts > contexts


def test_a_line_stands_for_all_steps_before_the_first_scale(tmp_path: Path) -> None:
    """They are several groups where a step follows the text model's."""
    longer = parse((add_context_step(make_words_bundle(tmp_path / "longer")) / "manifest.json").read_bytes())
    constants, activations = CONSTANTS | {"context": Constants(5 * MB, 100)}, {**ACTIVATIONS, ("context", None): MB}
    found = forecast(longer, TENSORRT, constants, activations, low_memory=True)
    assert [each.scale for each in found.scales] == [None, 0, 1, None]
    assert (found.scales[0].weights, found.scales[0].activations) == (60 * MB, 5 * MB)  # the text model's


def test_keys_and_values_are_counted_exactly(manifest: Manifest) -> None:
    """Five rows of both branches, allocated as a whole from the first scale to the last."""
    cached = 5 * 2 * 32 * 4
    assert [cache_bytes(manifest.plan, index) for index in range(8)] == [0, *[cached] * 4, 0, 0, 0]
    assert cache_peak(manifest.plan) == cached


def test_only_changes_that_help_are_suggested(manifest: Manifest) -> None:
    usual = forecast(manifest, CPU, CONSTANTS, ACTIVATIONS, low_memory=False)
    low = forecast(manifest, CPU, CONSTANTS, ACTIVATIONS, low_memory=True)
    assert advice(manifest, usual, low, usual.peak) == []
    assert [fits(100, free) for free in (99, 100, 114, 115)] == [
        "which does not fit either",
        *["which fits with less than 15 % to spare"] * 2,
        "which fits",
    ]
    assert advice(manifest, usual, low, usual.peak - 1) == [
        "generate --low-memory: every graph is released after its last step, the text model before the first scale; "
        f"peak {size(low.peak)}, which fits with less than 15 % to spare",
        "build at --precision int8: weights take about 25% of these; with --low-memory a peak of about "
        f"{size(max(low.peak - int(0.75 * sum(each.weights for each in low.components)), low.process))}, which fits",
    ]
    smallest = dataclasses.replace(manifest, precision=Precision.INT8)
    assert advice(smallest, low, low, low.peak - 1) == [
        f"a device with {size(low.peak)} free: nothing in this bundle can be left out"
    ]
    assert advice(smallest, low, low, 10 * MB) == [
        f"a checkpoint of smaller pictures: buffers and libraries alone take {size(low.process + low.buffers)} at 32 "
        "x 32 pixels"
    ]


def test_a_build_that_cannot_fit_is_refused_before_it_begins(manifest: Manifest) -> None:
    large = [dataclasses.replace(each, bytes=3 * 2**30) for each in manifest.components[1:2]]
    require_build_memory(large, None)
    needed = BUILDER_PROCESS + 2 * 3 * 2**30 + 2**30
    require_build_memory(large, needed, workspace=2**30)
    with pytest.raises(BuildError) as refused:
        require_build_memory(large, needed - 1, workspace=2**30)
    assert str(refused.value) == (
        "transformer: building its engine takes 7.37 GiB, found 7.37 GiB free; close other programs, lower the "
        "workspace, build at a lower --precision, or build on a larger machine of the same architecture"
    )


def test_a_forecast_does_not_read_the_folder(manifest: Manifest, tmp_path: Path) -> None:
    """A forecast is arithmetic on the manifest: the same numbers wherever the bundle lies."""
    assert forecast(weights_inside(tmp_path), CPU, CONSTANTS, ACTIVATIONS, low_memory=True) == forecast(
        manifest, CPU, CONSTANTS, ACTIVATIONS, low_memory=True
    )


def test_the_message_for_refused_memory_has_needed_found_and_remedy(manifest: Manifest) -> None:
    least = least_memory(manifest, CPU, low_memory=False)
    assert 86 * MB < least_memory(manifest, CPU, low_memory=True) <= least

    def tell(memory: Memory, known: Manifest | None = manifest, *, low_memory: bool = False) -> str:
        return str(shortage("std::bad_alloc", known, CPU, low_memory=low_memory, memory=lambda: memory))

    assert tell(Memory(4 * 2**30, 300 * 2**20, 4 * 2**30)) == (
        f"not enough memory: expected {size(least)} or more in all, found 300 MiB free (std::bad_alloc); load with "
        "low_memory=True (hart-edge generate --low-memory), close other programs, or see what would fit: hart-edge "
        "plan BUNDLE"
    )
    limited = Memory(512 * 2**20, 20 * 2**20, 2**36, "the control group's limit")
    told = tell(limited, low_memory=True)
    assert ", found 20 MiB free under the control group's limit of 512 MiB (std::bad_alloc); close other" in told
    assert "close other programs, raise the limit, or see" in told
    assert tell(Memory(None, None, None), None).startswith("not enough memory, found no more (std::bad_alloc); load")


def test_memory_errors_of_libraries_are_explained_but_not_those_of_a_gpu(manifest: Manifest) -> None:
    said = "Unable to allocate 9 TiB"
    for raised in (MemoryError(said), OutOfMemoryError("short", reason=said)):
        told = pytest.raises(OutOfMemoryError, match=rf"^not enough memory: expected .* \({said}\); load")
        with told, shortage_told(manifest, CPU, low_memory=False):
            raise raised
    with pytest.raises(OutOfMemoryError, match=r"^on the GPU$"), shortage_told(manifest, CPU, low_memory=False):
        raise OutOfMemoryError("on the GPU")
