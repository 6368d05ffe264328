"""The experiments at a tiny size: their figures, resuming after an interruption, and changed options are refused."""

from __future__ import annotations

import json
import signal
import xml.etree.ElementTree as ElementTree
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.experiments import alternating, positions, residual_steps, sparse_attention
from benchmarks.experiments.absolute import AbsoluteTransformer, resized_positions
from benchmarks.experiments.chart import Curve, chart, nice_ticks
from benchmarks.experiments.notebook import Notebook, command, markdown, mean_of
from benchmarks.experiments.positions import PositionsTask
from hart_edge.bundle.settings import Settings
from hart_edge.data.pictures import read_pictures
from hart_edge.errors import InputError
from hart_edge.evaluation.reconstruction import measure
from hart_edge.evaluation.subjects import reference_of
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.training.loop import TrainingSession
from hart_edge.training.recipe import to_json
from hart_edge.training.tokenizer.recipe import open_tokenizer
from tests.export.reference_walk import tiny_model
from tests.training.evaluator import tiny_evaluator
from tests.training.tokenizer import tiny_tokenizer
from tests.training.transformer import tiny_transformer

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny_evaluator.write_data(tmp_path / "data", {"train": 8, "validation": 5}, "picture {}")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A tiny checkpoint that draws."""
    task = tiny_transformer.task(tmp_path / "made")
    tiny_transformer.filled(task.model, spread=0.05)
    task.publish(tmp_path / "checkpoint", 1)
    return tmp_path / "checkpoint"


# The parts that all experiments use.


def test_mean_and_spread() -> None:
    assert mean_of([1.0, 3.0]).text(2) == "2.00 ± 1.41"
    assert mean_of([2.5]).text(1) == "2.5"
    assert markdown(["a", "b"], [["c", "1"]]) == "| a | b |\n| --- | --: |\n| c | 1 |\n"


def test_a_notebook_does_not_measure_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def run() -> dict[str, float]:
        calls.append(1)
        return {"x": 2.5}

    first = Notebook(tmp_path, {"sizes": (1, 2)})
    assert first.measure("a", 0, run) == {"x": 2.5} == Notebook(tmp_path, {"sizes": (1, 2)}).measure("a", 0, run)
    assert calls == [1]
    found = json.loads((tmp_path / "results.json").read_text("utf-8"))
    assert found["asked"] == {"sizes": [1, 2]} and found["runs"] == {"a, seed 0": {"x": 2.5}}
    assert found["machine"]["torch"] == torch.__version__
    with pytest.raises(InputError, match=r"found others \(sizes differ\); choose another --out"):
        Notebook(tmp_path, {"sizes": (1, 3)})
    (tmp_path / "results.json").write_text("{", "utf-8")
    with pytest.raises(InputError, match="expected results of an experiment"):
        Notebook(tmp_path, {"sizes": (1, 2)})


def test_ticks_are_round_and_cover() -> None:
    assert nice_ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(17.3, 22.1) == [17, 18, 19, 20, 21, 22, 23]
    assert nice_ticks(3, 3)[0] <= 3 <= nice_ticks(3, 3)[-1]


def test_a_chart_has_points_where_they_belong() -> None:
    drawn = chart(
        "A & B", "steps", "dB", [Curve("one", [(0, 10, 0), (8, 20, 5)]), Curve("two", [(0, 15, 0)])], [0, 4, 8]
    )
    root = ElementTree.fromstring(drawn)
    circles = [(float(each.get("cx", "")), float(each.get("cy", ""))) for each in root.iter(f"{SVG}circle")]
    assert [x for x, _ in circles] == [70, 620, 70]  # the ends of the axis
    top, bottom = 40, 350  # of 10 and 25 dB
    assert [y for _, y in circles] == pytest.approx(
        [bottom, bottom - (bottom - top) * 10 / 15, bottom - (bottom - top) / 3], abs=0.1
    )
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert {"A & B", "steps", "dB", "one", "two", "0", "4", "8", "10", "25"} <= set(texts)
    with pytest.raises(ValueError, match="finite points"):
        chart("", "", "", [Curve("", [(0, float("nan"), 0)])])


# Alternating paths.


@pytest.mark.long
def test_alternating(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(to_json(tiny_tokenizer.recipe(steps=4))), "utf-8")
    out = tmp_path / "out"
    arguments = [
        "--data",
        str(data),
        "--out",
        str(out),
        "--recipe",
        str(recipe),
        "--ratios",
        "0",
        "1",
        "--threads",
        "1",
    ]
    assert command(alternating.main, alternating.parser(), arguments) == 0
    said, found = capsys.readouterr().out, json.loads((out / "results.json").read_text("utf-8"))
    assert list(found["runs"]) == [f"{ratio}, seed {seed}" for seed in (0, 1) for ratio in (0, 1)]
    model = open_tokenizer(out / "runs" / "1-seed-0" / "tokenizer")
    expected = measure(model.autoencoder, model.quantizer, read_pictures(data / "validation", 32).images)
    figures = {k: v for k, v in found["runs"]["1, seed 0"].items() if k != "seconds"}
    assert figures == pytest.approx(expected.figures())
    lines = said.splitlines()
    assert said == (out / "table.md").read_text("utf-8") and lines[2].startswith("| 0 % | ") and " ± " in lines[3]
    assert len(ElementTree.parse(out / "alternating.svg").getroot().findall(f"{SVG}polyline")) == 2

    times = (out / "results.json").stat().st_mtime_ns
    assert command(alternating.main, alternating.parser(), arguments) == 0  # nothing is trained again
    assert (out / "results.json").stat().st_mtime_ns == times
    assert command(alternating.main, alternating.parser(), [*arguments, "--set", "losses.edges=0"]) == 1
    assert "found others (recipe differ)" in capsys.readouterr().err


# Positions.


def test_a_table_of_positions_is_kept_or_resized() -> None:
    ramp = torch.arange(4.0).repeat_interleave(4)[:, None]  # rows of a 4 x 4 grid
    small, finest = torch.tensor([[1.0], [2.0], [3.0], [4.0]]), ramp
    found = resized_positions([small, finest], (2, 4, 8))
    assert torch.equal(found[0], small) and torch.equal(found[1], finest)
    grid = found[2].view(8, 8)
    assert torch.allclose(grid[:, 0], grid[:, 7]) and torch.allclose(grid[3:5, 0], torch.tensor([1.25, 1.75]), atol=0.1)


def test_absolute_positions_distinguish_tokens_and_rotary_angles_do_not() -> None:
    torch.manual_seed(0)
    model = AbsoluteTransformer(tiny_transformer.CONFIG, 16, 4).eval()
    tokens = tiny_transformer.CONFIG.context_token + 4
    x, angles = torch.randn(1, tokens, 16), torch.randn(1, tokens, 8)
    modulation = torch.randn(1, 12, 16)
    first, _ = model(x, angles.cos(), angles.sin(), modulation)
    other = angles.clone()
    other[:, 6:] += 1  # of visual tokens
    assert torch.equal(model(x, other.cos(), other.sin(), modulation)[0], first)
    other[:, :6] += 1
    assert not torch.allclose(model(x, other.cos(), other.sin(), modulation)[0], first)
    with torch.no_grad():
        model.positions[0][2] += 1
    assert not torch.allclose(model(x, angles.cos(), angles.sin(), modulation)[0], first)
    with pytest.raises(ValueError, match="expected all 10 tokens at once, found 9"):
        model(x[:, 1:], angles[:, 1:], angles[:, 1:], modulation)


@pytest.mark.long
def test_positions(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An experiment gives the same curves whether or not it is interrupted at the higher scales."""
    tokenizer = tiny_transformer.publish(tmp_path, tiny_transformer.tokenizer())
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(to_json(tiny_transformer.changed(steps=4, warmup=1, token_drop=0.0))), "utf-8")
    common = ["--data", str(data), "--tokenizer", str(tokenizer), "--recipe", str(recipe), "--high", "1", "2", "3"]
    common += ["--high-steps", "3", "--every", "2", "--seeds", "1", "--threads", "1"]
    assert command(positions.main, positions.parser(), [*common, "--out", str(tmp_path / "whole")]) == 0
    whole = json.loads((tmp_path / "whole" / "results.json").read_text("utf-8"))["runs"]
    assert list(whole) == ["relative, seed 0", "absolute, seed 0"]
    for run in whole.values():
        assert [list(run[name]) for name in ("low", "high")] == [["0", "2", "4"], ["0", "2", "3"]]
        assert all(1 < loss < 5 for curve in run.values() for loss in curve.values())
    assert whole["relative, seed 0"]["high"] != whole["absolute, seed 0"]["high"]
    assert "| relative |" in capsys.readouterr().out

    asked = [True]

    class Interrupted(PositionsTask):
        def after(self, session: TrainingSession, step: int) -> None:
            super().after(session, step)
            if asked and step == 1 and self.recipe.side == 48 and type(self.model.transformer) is AbsoluteTransformer:
                asked.clear()
                signal.raise_signal(signal.SIGINT)

    again = [*common, "--out", str(tmp_path / "parts")]
    main = partial(positions.main, task_type=Interrupted)
    assert [command(main, positions.parser(), again) for _ in range(2)] == [130, 0]
    assert "interrupted; the same command goes on" in capsys.readouterr().err
    assert json.loads((tmp_path / "parts" / "results.json").read_text("utf-8"))["runs"] == whole


# Steps of the residual.


@pytest.mark.long
def test_residual_steps(data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_evaluator.task().publish(tmp_path, 1)
    arguments = ["--data", str(data), "--evaluator", str(tmp_path / "evaluator"), "--out", str(tmp_path / "out")]
    arguments += ["--checkpoint", str(checkpoint), "--steps", "0", "1", "4", "--rounds", "1"]
    assert command(residual_steps.main, residual_steps.parser(), arguments) == 0
    runs = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["runs"]
    assert list(runs) == [*(f"{n}, seed {seed}" for seed in (0, 1) for n in (0, 1, 4)), "latency, seed 0"]
    assert len({runs[f"{n}, seed 0"]["frechet"] for n in (0, 1, 4)}) == 3
    assert [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[2:]] == [
        "off",
        "1 step",
        "4 steps",
    ]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "frechet.svg", "results.json", "retrieval.svg", "table.md",
    }  # fmt: skip
    assert command(residual_steps.main, residual_steps.parser(), [*arguments, "--pictures", "1"]) == 1


@pytest.mark.long
def test_steps_change_only_the_residual(checkpoint: Path) -> None:
    reference = reference_of(load_checkpoint(checkpoint), Settings())
    steps = residual_steps.Steps(reference)
    before = list(reference.draw(["a picture"], [3]))
    off, two = (list(steps.take(count).draw(["a picture"], [3])) for count in (0, 2))
    assert np.array_equal(before[0], two[0]) and not np.array_equal(off[0], two[0])  # two is its own
    residual, picture = zip(*(residual_steps.macs(steps, count) for count in (0, 1, 2)), strict=True)
    assert residual[0] == 0 and picture[1] - picture[0] == residual[1] > 0
    assert picture[2] - picture[1] == residual[2] - residual[1] > 0


def test_few_keys_are_those_of_the_first_scales_and_of_the_one_before(tmp_path: Path) -> None:
    """Against one pass over all scales with a mask."""
    sides = [1, 2, 3, 4, 5, 6]
    model = tiny_model(tmp_path, 3, llm={"patch_nums": sides, "disable_aln": True, "shared_aln": False})
    generator = torch.Generator().manual_seed(0)
    tokens = [model.config.context_token, *(side * side for side in sides[1:])]
    inputs = [torch.randn(1, count, model.config.embed_dim, generator=generator) for count in tokens]
    angles = [torch.randn(1, count, model.config.head_dim, generator=generator) for count in tokens]
    found, cache = [], None
    few = sparse_attention.FewKeys(model)
    with torch.no_grad():
        for x, angle in zip(inputs, angles, strict=True):
            hidden, cache = few(x, angle.cos(), angle.sin(), None, cache)
            found.append(hidden)
        order = torch.repeat_interleave(torch.arange(len(sides)), torch.tensor(tokens))
        seeing, keys = order[:, None], order[None]
        mask = (keys == seeing) | (keys == seeing - 1) | ((keys < seeing) & (keys < sparse_attention.FIRST))
        angle = torch.cat(angles, 1)
        expected, _ = model.transformer(torch.cat(inputs, 1), angle.cos(), angle.sin(), mask=mask)
    assert torch.allclose(torch.cat(found, 1), expected, atol=1e-4)
    assert not mask[-1, order == 3].any()  # two scales before its own, and behind the first
    counted = [int(mask[order == scale][0].sum()) for scale in range(6)]
    assert [sparse_attention.few_keys(tokens, scale) for scale in range(6)] == counted
    assert cache is not None and cache[0][0].shape[2] == sum(tokens)


@pytest.mark.long
def test_sparse_attention(data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_evaluator.task().publish(tmp_path, 1)
    arguments = ["--data", str(data), "--evaluator", str(tmp_path / "evaluator"), "--out", str(tmp_path / "out")]
    arguments += ["--checkpoint", str(checkpoint), "--seeds", "1"]
    assert command(sparse_attention.main, sparse_attention.parser(), arguments) == 0
    runs = json.loads((tmp_path / "out" / "results.json").read_text("utf-8"))["runs"]
    assert list(runs["keys, seed 0"]) == ["exact", "exact, few keys", "fast", "fast, few keys", "another seed"]
    assert "| hart-0.7b-1024 | 27,648 | 90% | 50% | 46% |" in capsys.readouterr().out
