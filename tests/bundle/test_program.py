"""A plan prepared for a device, for the tiny bundle and for one with a KV cache."""

import dataclasses
import itertools
from pathlib import Path

import pytest

from hart_edge.bundle.manifest import Dtype, Manifest, TensorSpec
from hart_edge.bundle.program import evaluate, make_program, unaligned_rows
from hart_edge.bundle.verify import open_bundle
from hart_edge.errors import BundleError
from tests.bundle.make_bundle import make_bundle, narrow_rows
from tests.runtime.words_bundle import add_context_step, make_words_bundle


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return open_bundle(make_bundle(tmp_path_factory.mktemp("program") / "tiny")).manifest


def with_output(manifest: Manifest, graph: str, spec: TensorSpec) -> Manifest:
    """The manifest with one more output of a graph, which the plan does not name."""
    changed = tuple(
        dataclasses.replace(each, outputs=(*each.outputs, spec)) if each.name == graph else each
        for each in manifest.components
    )
    return dataclasses.replace(manifest, components=changed)


def test_groups_are_the_scales_and_the_steps_before_and_after_them(manifest: Manifest) -> None:
    groups = make_program(manifest.plan, manifest.components).groups
    assert [(g.scale, g.first, g.last, g.ends_scale) for g in groups] == [
        (None, 0, 0, False),
        (0, 1, 3, True),
        (1, 4, 6, True),
        (None, 7, 7, False),
    ]
    assert [g.uploads for g in groups] == [
        ("input_ids",),
        ("cfg_scale", "top_k.0", "uniform.0"),
        ("top_k.1", "uniform.1"),  # cfg_scale was uploaded with the first group
        (),
    ]


def test_the_text_model_is_a_group_of_its_own(tmp_path: Path) -> None:
    """A runner leaves it out for a prompt that it knows."""
    manifest = open_bundle(add_context_step(make_words_bundle(tmp_path / "longer"))).manifest
    groups = make_program(manifest.plan, manifest.components).groups
    assert [(g.scale, g.first, g.last) for g in groups] == [
        (None, 0, 0),
        (None, 1, 1),
        (0, 2, 4),
        (1, 5, 7),
        (None, 8, 8),
    ]
    assert [g.uploads for g in groups][:2] == [("input_ids",), ()]


def test_every_tensor_of_a_step_has_a_place_and_none_overlap(manifest: Manifest) -> None:
    program = make_program(manifest.plan, manifest.components, batch=3)
    for index, step in enumerate(manifest.plan.steps):
        tensors = program.tensors(index)
        assert tensors.keys() == step.inputs.keys() | step.outputs.keys()
        ranges = sorted((each.offset, each.offset + each.size) for each in tensors.values())
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(ranges))
    assert program.tensors(1)["logits"].shape == (6, 1, 16)
    assert program.size >= program.least > sum(manifest.plan.buffers[name].bytes_per_image for name in program.resident)


def test_what_is_uploaded_before_a_group_is_not_overwritten_within_it(manifest: Manifest) -> None:
    """uniform.1 is read by the group's second step, and uploaded before its first."""
    program = make_program(manifest.plan, manifest.components)
    noise, logits = program.places["uniform.1"], program.places["logits.1"]
    assert noise.offset + noise.size <= logits.offset or logits.offset + logits.size <= noise.offset


def test_an_output_that_the_plan_does_not_name_gets_a_place(manifest: Manifest) -> None:
    changed = with_output(manifest, "transformer", TensorSpec("present", Dtype.FLOAT32, ("2B", 2, "n", 8)))
    program = make_program(changed.plan, changed.components)
    assert [found.get("present") and found["present"].shape for found in program.unnamed] == [
        None, (2, 2, 1, 8), None, None, (2, 2, 4, 8), None, None, None,
    ]  # fmt: skip
    places = program.tensors(4)
    apart = [each for name, each in places.items() if name != "present"]
    new = places["present"]
    assert all(new.offset + new.size <= each.offset or each.offset + each.size <= new.offset for each in apart)


def test_what_blocks_leave_and_no_buffer_takes_has_one_place(manifest: Manifest) -> None:
    changed = manifest
    for name in ("own_key.0", "own_key.1", "own_value.0", "own_value.1"):
        changed = with_output(changed, "transformer", TensorSpec(name, Dtype.FLOAT32, ("2B", 2, "n", 8)))
    places = make_program(changed.plan, changed.components).tensors(4)
    assert places["own_key.0"] == places["own_key.1"] != places["own_value.0"] == places["own_value.1"]


def test_an_output_of_unknown_size_is_refused(manifest: Manifest) -> None:
    changed = with_output(manifest, "tokens", TensorSpec("kept", Dtype.FLOAT32, ("k",)))
    with pytest.raises(
        BundleError, match="tokens: expected symbols of its other tensors in the shape of kept, found 'k'"
    ):
        make_program(changed.plan, changed.components)


def test_extents_are_numbers_or_symbols() -> None:
    assert evaluate("N", {"N": 5, "n": 4}, "g", "t") == 5
    assert evaluate(7, {}, "g", "t") == 7


def test_a_cache_is_read_where_it_was_written(int8_bundle: Path) -> None:
    """A scale's new keys follow those that it reads, and the next scale reads both in place."""
    manifest = open_bundle(int8_bundle).manifest
    program = make_program(manifest.plan, manifest.components)
    runs = [i for i, step in enumerate(manifest.plan.steps) if step.graph == "transformer"]
    for before, after in itertools.pairwise(runs):
        written, read = program.tensors(before), program.tensors(after)
        for part in ("key.0", "value.0", "null_key.0"):
            if (part, before) == ("null_key.0", runs[0]):
                continue  # scale 0 has no unconditional branch
            new, past, next_past = written[part], written[f"past_{part}"], read[f"past_{part}"]
            assert new.offset == past.offset + past.size
            assert (next_past.offset, next_past.size) == (past.offset, past.size + new.size)
    cache = program.places["key.0"]
    assert cache.size == program.tensors(runs[-1])["past_key.0"].size
    assert unaligned_rows(manifest.plan) == ""


def test_misaligned_rows_are_found(manifest: Manifest) -> None:
    """Rows of 192 bytes begin at addresses that are no multiples of 256."""
    assert unaligned_rows(manifest.plan) == ""
    assert unaligned_rows(narrow_rows(manifest.plan, 24)) == "key.0.1"
