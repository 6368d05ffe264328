"""The plan and constants.bin of a model: the order of steps, lifetimes of buffers, values of constants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hart_edge.bundle.manifest import CONSTANT_ALIGNMENT, BufferKind, Precision, bytes_per_image, lifetimes
from hart_edge.bundle.verify import open_bundle
from hart_edge.bundle.writer import BundleWriter
from hart_edge.export.graphs import build_graphs
from hart_edge.export.plan_builder import build_plan
from hart_edge.reference.checkpoint import load_checkpoint
from tests.conftest import GOLDEN, BuildOnce
from tests.export.reference_walk import tiny_model

SIDES = [1, 2, 3, 5]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model of four scales with its plan and constants: T = 6, 2 blocks of 2 heads, 16 channels each."""
    model = tiny_model(tmp_path_factory.mktemp("tiny"), 8, llm={"patch_nums": SIDES})
    return model, *build_plan(model, build_graphs(model, None))


def test_steps(tiny) -> None:
    _, plan, _ = tiny
    order = [(str(step.graph), step.scale, step.ends_scale) for step in plan.steps]
    middle = []
    for scale in range(3):
        middle += [("transformer", scale, False), ("tokens", scale, False), ("latent", scale, True)]
        middle += [("embed", scale + 1, False)]
    last = [("transformer", 3, False), ("tokens", 3, False), ("residual", 3, True), ("decoder", None, False)]
    assert order == [("context", None, False), *middle, *last]
    assert plan.steps[-1].outputs == {"pixels": "pixels", "finite": "finite", "image": "image"}


def test_last_scale_writes_no_cache(tiny) -> None:
    _, plan, _ = tiny
    runs = [step for step in plan.steps if step.graph == "transformer"]
    assert list(runs[-1].outputs) == ["hidden", "null_hidden"]
    parts = [f"{half}{part}.{i}" for half in ("", "null_") for part in ("key", "value") for i in (0, 1)]
    assert set(runs[-2].outputs) == {"hidden", "null_hidden", *parts}
    assert not [name for name in plan.buffers if name.startswith(("key.", "null_key.")) and name.endswith(".3")]


def test_scale_0_has_no_unconditional_branch(tiny) -> None:
    """Its keys and values come from the context graph, which has them as constants."""
    _, plan, _ = tiny
    context, first = plan.steps[0], plan.steps[1]
    parts = [f"{part}.{i}" for part in ("key", "value") for i in (0, 1)]
    assert {plan.buffers[first.inputs[f"past_{part}"]].shape for part in parts} == {(0, "B", 2, 16)}
    assert {first.inputs[f"past_null_{part}"] for part in parts} == {"past_null.empty"}
    assert plan.buffers["past_null.empty"].shape == (1, 0, 2, 16)
    assert set(first.outputs) == {"hidden", *parts}
    assert plan.buffers["x.0"].shape == ("B", 6, 32) and plan.buffers["x.1"].shape == ("2B", 4, 32)
    assert all(context.outputs[f"null_{part}"] == f"null_{part}.0" for part in parts)
    second = next(step for step in plan.steps if (step.graph, step.scale) == ("transformer", 1))
    for part in parts:
        made, read = (plan.buffers[name] for name in (f"null_{part}.0", second.inputs[f"past_null_{part}"]))
        assert (made.cache, made.start, made.shape) == (read.cache, read.start, read.shape)
    assert [plan.buffers[f"{name}.0"].shape for name in ("hidden", "null_hidden")] == [("B", 6, 32), ("B", 1, 32)]


def test_every_scale_appends_its_rows_to_the_cache(tiny) -> None:
    """It reads the rows of the scales before it in place."""
    _, plan, _ = tiny
    runs = {step.scale: step for step in plan.steps if step.graph == "transformer"}
    for part in ("key", "null_value"):
        held = 0 if part == "key" else 1  # one key stands for 6 context tokens
        for scale, width in enumerate([6, 4, 9, 25]):
            if (part, scale) == ("null_value", 0):
                continue
            past = plan.buffers[runs[scale].inputs[f"past_{part}.0"]]
            assert (past.cache, past.start, past.shape) == (f"{part}.0", 0, (held, "B", 2, 16))
            if scale < 3:
                new = plan.buffers[runs[scale].outputs[f"{part}.0"]]
                assert (new.cache, new.start, new.shape) == (f"{part}.0", held, (width, "B", 2, 16))
                held += width
        cache = plan.buffers[f"{part}.0"]
        assert (cache.kind, cache.shape) == (BufferKind.CACHE, (held, "B", 2, 16))
        assert cache.bytes_per_image == held * 2 * 16 * 4


def test_buffers_live_from_first_to_last_use(tiny) -> None:
    _, plan, _ = tiny
    assert set(plan.buffers) == set(lifetimes(plan.steps, plan.buffers))
    for name, buffer in plan.buffers.items():
        names = {name} | {n for n, each in plan.buffers.items() if each.cache == name}
        touching = [
            i for i, s in enumerate(plan.steps) if not names.isdisjoint((*s.inputs.values(), *s.outputs.values()))
        ]
        assert (buffer.first, buffer.last) == (touching[0], touching[-1]), name
        assert buffer.bytes_per_image == bytes_per_image(buffer.dtype, buffer.shape), name
    steps = [(str(step.graph), step.scale) for step in plan.steps]
    assert plan.buffers["key.0"].first == steps.index(("transformer", 0))
    assert plan.buffers["key.0"].last == steps.index(("transformer", 3))
    assert plan.buffers["hidden.3"].last == steps.index(("residual", 3))
    assert plan.buffers["last_position"].last == steps.index(("embed", 3))


def test_settings_and_noise(tiny) -> None:
    model, plan, _ = tiny
    settings = {name: buffer for name, buffer in plan.buffers.items() if buffer.kind is BufferKind.SETTING}
    per_scale = ("top_k", "guidance_ratio", "temperature")
    expected = {"cfg_scale", "top_p", "smooth", *(f"{name}.{s}" for name in per_scale for s in range(4))}
    assert set(settings) == expected
    assert {buffer.shape for buffer in settings.values()} == {(1,)}
    noise = {name: buffer for name, buffer in plan.buffers.items() if buffer.kind is BufferKind.NOISE}
    assert {name: (b.purpose, b.scale, b.shape) for name, b in noise.items()} == {
        **{f"uniform.{s}": (0, s, ("B", side * side, 40)) for s, side in enumerate(SIDES)},
        "residual_noise": (1, 3, ("B", model.config.num_sampling_steps + 1, 25, 8)),
    }


def test_constants(tiny) -> None:
    """Compared with torch's resizing, the level embedding, and coordinates by hand."""
    model, plan, constants = tiny
    assert set(constants) == {
        *(f"positions.{s}" for s in range(4)),
        *(f"{name}.{s}" for name in ("upsample", "phi") for s in range(3)),
        *(f"{name}.{s}" for name in ("downsample", "level", "coordinates") for s in range(1, 4)),
    }
    assert set(constants) == {b.constant for b in plan.buffers.values() if b.kind is BufferKind.CONSTANT}
    assert constants["positions.0"].tolist() == [5]  # the last context position predicts the first code
    generator = torch.Generator().manual_seed(0)
    for scale, side in enumerate(SIDES):
        if scale < 3:
            x = torch.randn(1, 1, side, side, generator=generator)
            up = torch.from_numpy(constants[f"upsample.{scale}"])
            assert up.shape == (5, side)
            assert torch.allclose(up @ x @ up.T, F.interpolate(x, size=(5, 5), mode="bicubic"), atol=1e-5)
        if scale > 0:
            assert constants[f"positions.{scale}"].tolist() == list(range(side * side))
            x = torch.randn(1, 1, 5, 5, generator=generator)
            down = torch.from_numpy(constants[f"downsample.{scale}"])
            assert torch.allclose(down @ x @ down.T, F.adaptive_avg_pool2d(x, side), atol=1e-6)
            assert np.array_equal(constants[f"level.{scale}"], model.transformer.level(scale).numpy())
            ticks = [5 * i / side for i in range(side)]
            coordinates = [[row, column] for row in ticks for column in ticks]
            assert np.allclose(constants[f"coordinates.{scale}"], coordinates, atol=1e-6)
    assert [constants[f"phi.{s}"].tolist() for s in range(3)] == [[0], [1], [2]]  # ticks 1/12, 13/36, 23/36, 11/12


def test_constants_file(tmp_path: Path) -> None:
    arrays = {
        "first": np.arange(3, dtype=np.int64),
        "second": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        "empty": np.zeros((0, 4), np.float32),
        "big-endian": np.arange(5).astype(">f4"),
        "last": np.array([True]),
    }
    entries = BundleWriter(tmp_path).constants(arrays)
    data = (tmp_path / "constants.bin").read_bytes()
    assert [entry.offset % CONSTANT_ALIGNMENT for entry in entries.values()] == [0] * 5
    for name, entry in entries.items():
        raw = data[entry.offset : entry.offset + entry.nbytes]
        found = np.frombuffer(raw, np.dtype(str(entry.dtype)).newbyteorder("<")).reshape(entry.shape)
        assert np.array_equal(found, arrays[name]), name
    assert len(data) == entries["last"].offset + 1


def test_a_built_bundle_holds_this_plan_and_these_constants(build_once: BuildOnce) -> None:
    """The runtime reads the plan and constants that were planned; its reader has checked every step."""
    checkpoint = GOLDEN / "adaln"
    model = load_checkpoint(checkpoint).model
    plan, constants = build_plan(model, build_graphs(model, None))
    bundle = open_bundle(build_once(checkpoint, Precision.FP32))
    assert bundle.manifest.plan == plan
    assert set(bundle.manifest.constants) == set(constants)
    for name, expected in constants.items():
        found = bundle.constant(name)
        assert found.dtype == expected.dtype and np.array_equal(found, expected), name
        assert bundle.manifest.constants[name].offset % CONSTANT_ALIGNMENT == 0
