"""The plan and constants.bin of a model: the order of steps, lifetimes of buffers, values of constants."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hart_edge.bundle.manifest import CONSTANT_ALIGNMENT, BufferKind, Precision, bytes_per_image, lifetimes, parse
from hart_edge.bundle.plan import tokens_of
from hart_edge.bundle.settings import Speed
from hart_edge.bundle.verify import open_bundle
from hart_edge.bundle.writer import BundleWriter
from hart_edge.errors import BundleError
from hart_edge.export.graphs import build_graphs
from hart_edge.export.plan_builder import build_plans
from hart_edge.reference.checkpoint import load_checkpoint
from tests.conftest import GOLDEN, BuildOnce
from tests.export.reference_walk import tiny_model

SIDES = [1, 2, 3, 5]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A model of four scales with its plan and constants: T = 6, 2 blocks of 2 heads, 16 channels each."""
    model = tiny_model(tmp_path_factory.mktemp("tiny"), 8, llm={"patch_nums": SIDES})
    plans, constants = build_plans(model, build_graphs(model, None))
    return model, plans[Speed.EXACT], constants


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
    empty = {"key": "past_null_key.empty", "value": "past_null_value.empty"}
    assert all(first.inputs[f"past_null_{part}"] == empty[part.split(".")[0]] for part in parts)
    assert plan.buffers["past_null_key.empty"].shape == (1, 0, 2, 16)
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
    assert {name: (b.purpose, b.scale, b.draw, b.shape) for name, b in noise.items()} == {
        **{f"uniform.{s}": (0, s, None, ("B", side * side, 40)) for s, side in enumerate(SIDES)},
        "residual_noise.start": (1, 3, 0, ("B", 1, 25, 8)),
        "residual_noise.0": (1, 3, 1, ("B", model.config.num_sampling_steps, 25, 8)),
    }


def test_constants(tiny) -> None:
    """Compared with torch's resizing, the level embedding, and coordinates by hand."""
    model, plan, constants = tiny
    assert set(constants) == {
        "last_of_context",
        *(f"sources_of_all.{side * side}" for side in SIDES),
        *(f"first.{side * side}" for side in SIDES[1:]),
        *(f"{name}.{s}" for name in ("upsample", "phi") for s in range(3)),
        *(f"{name}.{s}" for name in ("downsample", "level", "coordinates") for s in range(1, 4)),
        *(f"step_{part}.0_of_3" for part in ("embeddings", "constants")),
    }
    assert set(constants) == {b.constant for b in plan.buffers.values() if b.kind is BufferKind.CONSTANT}
    assert constants["last_of_context"].tolist() == [5]  # the last context position predicts the first code
    generator = torch.Generator().manual_seed(0)
    for scale, side in enumerate(SIDES):
        if scale < 3:
            x = torch.randn(1, 1, side, side, generator=generator)
            up = torch.from_numpy(constants[f"upsample.{scale}"])
            assert up.shape == (5, side)
            assert torch.allclose(up @ x @ up.T, F.interpolate(x, size=(5, 5), mode="bicubic"), atol=1e-5)
        if scale > 0:
            assert constants[f"first.{side * side}"].tolist() == list(range(side * side))
            x = torch.randn(1, 1, 5, 5, generator=generator)
            down = torch.from_numpy(constants[f"downsample.{scale}"])
            assert torch.allclose(down @ x @ down.T, F.adaptive_avg_pool2d(x, side), atol=1e-6)
            assert np.array_equal(constants[f"level.{scale}"], model.transformer.level(scale).numpy())
            ticks = [5 * i / side for i in range(side)]
            coordinates = [[row, column] for row in ticks for column in ticks]
            assert np.allclose(constants[f"coordinates.{scale}"], coordinates, atol=1e-6)
    assert [constants[f"phi.{s}"].tolist() for s in range(3)] == [[0], [1], [2]]  # ticks 1/12, 13/36, 23/36, 11/12


@pytest.fixture(scope="module")
def dialled(tmp_path_factory):
    """The plans of all speeds of a model of five scales and four denoising steps, and its constants."""
    llm = {"patch_nums": [1, 2, 3, 4, 5], "num_sampling_steps": 4}
    model = tiny_model(tmp_path_factory.mktemp("dialled"), 8, llm=llm)
    return model, *build_plans(model, build_graphs(model, None, tuple(Speed)), tuple(Speed))


@pytest.mark.parametrize(("speed", "guided"), [(Speed.EXACT, 5), (Speed.BALANCED, 3), (Speed.FAST, 2)])
def test_a_speed_leaves_the_unconditional_branch_of_its_last_scales_out(dialled, speed: Speed, guided: int) -> None:
    _, plans, _ = dialled
    plan = plans[speed]
    for step in plan.steps:
        if step.scale is None:
            continue
        null = {name for name in step.outputs if name.startswith("null_")}
        without = step.scale >= guided
        if step.graph == "transformer" and step.scale > 0:
            assert bool(null) != without
            assert plan.buffers[step.inputs["x"]].shape[0] == ("B" if without else "2B")
            assert plan.buffers[step.inputs["past_null_key.0"]].shape[1] == (0 if without else "B")
        if step.graph in ("tokens", "residual"):
            assert plan.buffers[step.inputs["null_hidden"]].shape[0] == (0 if without else "B")
            assert plan.buffers[step.inputs["cfg_scale"]].kind is (BufferKind.ZERO if without else BufferKind.SETTING)
    appended = 1 + sum(side * side for side in range(2, min(guided, 4) + 1))  # the last scale appends none
    assert plan.buffers["null_key.0"].shape[0] == appended


def test_fast_computes_three_tokens_of_four_in_the_last_two_scales(dialled) -> None:
    _, plans, constants = dialled
    plan = plans[Speed.FAST]
    shapes = {name: buffer.shape for name, buffer in plan.buffers.items()}
    selecting = [step for step in plan.steps if step.graph == "select"]
    assert [step.scale for step in selecting] == [3, 4]
    assert [step.inputs["past_f_hat"] for step in selecting] == ["f_hat.1", "f_hat.2"]
    for scale, tokens, kept in ((2, 9, 9), (3, 16, 12), (4, 25, 19)):
        assert shapes[f"hidden.{scale}"][1] == shapes[f"uniform.{scale}"][1] == shapes[f"latent.{scale}"][1] == kept
        steps = [step for step in plan.steps if step.scale == scale]
        sources = shapes[next(step.inputs["sources"] for step in steps if "sources" in step.inputs)]
        assert sources == ((1, tokens) if kept == tokens else ("B", tokens))
    assert shapes["residual_noise.0"][2] == shapes["residual"][1] == 19
    assert tokens_of(plan, (1, 2, 3, 4, 5)) == (1, 4, 9, 12, 19)
    assert tokens_of(plans[Speed.EXACT], (1, 2, 3, 4, 5)) == (1, 4, 9, 16, 25)
    assert shapes["key.0"][0] == 6 + 4 + 9 + 12  # the context, and what each scale but the last has computed
    assert not any(step.graph == "select" for speed in (Speed.EXACT, Speed.BALANCED) for step in plans[speed].steps)
    assert constants["first.12"].tolist() == list(range(12))
    assert constants["sources_of_all.9"].tolist() == [list(range(9))]


@pytest.mark.parametrize(("speed", "firsts"), [(Speed.EXACT, [0, 2]), (Speed.BALANCED, [0]), (Speed.FAST, [0])])
def test_the_residual_runs_as_often_as_its_steps_ask(dialled, speed: Speed, firsts: list[int]) -> None:
    model, plans, constants = dialled
    plan = plans[speed]
    runs = [step for step in plan.steps if step.graph == "residual"]
    count = 2 * len(firsts)
    assert [step.inputs["noise"] for step in runs] == [f"residual_noise.{first}" for first in firsts]
    assert [plan.buffers[step.inputs["noise"]].draw for step in runs] == [first + 1 for first in firsts]
    assert [step.ends_scale for step in runs] == [first == firsts[-1] for first in firsts]
    assert plan.buffers[runs[0].inputs["past_x"]].draw == 0
    table = model.residual.steps(count)[1].numpy()
    found = [constants[plan.buffers[step.inputs["step_constants"]].constant or ""] for step in runs]
    assert np.array_equal(np.concatenate(found), table)
    assert table[:, -1].tolist() == [1.0] * (count - 1) + [0.0]


def test_an_odd_number_of_denoising_steps_is_not_halved(tiny) -> None:
    model, *_ = tiny
    plans, _ = build_plans(model, build_graphs(model, None, (Speed.FAST,)), (Speed.FAST,))
    assert [step.graph for step in plans[Speed.FAST].steps].count("residual") == 1
    assert plans[Speed.FAST].buffers["residual_noise.0"].shape[1] == 3


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
    plans, constants = build_plans(model, build_graphs(model, None, tuple(Speed)), tuple(Speed))
    bundle = open_bundle(build_once(checkpoint, Precision.FP32))
    assert bundle.manifest.plans == plans
    assert set(bundle.manifest.constants) == set(constants)
    for name, expected in constants.items():
        found = bundle.constant(name)
        assert found.dtype == expected.dtype and np.array_equal(found, expected), name
        assert bundle.manifest.constants[name].offset % CONSTANT_ALIGNMENT == 0


@pytest.mark.parametrize(("draw", "draws"), [(6, 4), (9, 4), (1, 9)])
def test_noise_beyond_the_last_draw_is_refused(build_once: BuildOnce, draw: int, draws: int) -> None:
    """Of nine draws, the start and those of eight steps."""
    value = json.loads((build_once(GOLDEN / "adaln", Precision.FP32) / "manifest.json").read_bytes())
    noise = value["plan"]["buffers"]["residual_noise.0"]
    assert (noise["draw"], noise["shape"][1]) == (1, 4)
    noise |= {"draw": draw, "bytes_per_image": noise["bytes_per_image"] // 4 * draws}
    noise["shape"][1] = draws
    spec = next(each for each in value["components"] if each["name"] == "residual")["inputs"][-1]
    spec["shape"][1] = draws
    with pytest.raises(BundleError, match=r"residual"):
        parse(json.dumps(value).encode())
