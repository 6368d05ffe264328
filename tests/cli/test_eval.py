"""`hart-edge eval` on a tiny checkpoint and bundle: figures against calling the parts directly, and refusals."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hart_edge.cli import eval as evaluate
from hart_edge.data.pictures import read_pictures
from hart_edge.engines.loading import load
from hart_edge.evaluation.evaluate import stacked
from hart_edge.evaluation.evaluator import open_evaluator
from hart_edge.evaluation.frechet import Inception, frechet_distance
from hart_edge.evaluation.progress import log_truncated_prompts, with_progress
from hart_edge.evaluation.reconstruction import both_paths, measure
from hart_edge.evaluation.retrieval import retrieval
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.runtime.prompt_tokenizer import PromptTruncatedWarning
from tests.cli.command_line import Run
from tests.runtime.words_bundle import make_words_bundle
from tests.training.evaluator import tiny_evaluator
from tests.training.transformer import tiny_transformer


@pytest.fixture
def call(tmp_path: Path, run: Run) -> Any:
    """The command on invented data: data/, evaluator/, checkpoint/, bundle/ in an empty folder."""
    tiny_evaluator.task().publish(tmp_path, 1)
    torch.manual_seed(0)
    task = tiny_transformer.task(tmp_path / "made")
    tiny_transformer.filled(task.model, spread=0.02)
    task.publish(tmp_path / "checkpoint", 1)
    make_words_bundle(tmp_path / "bundle")
    tiny_evaluator.write_data(tmp_path / "data", {"validation": 6, "test": 5}, "w{}")

    def of(*more: object, by: Any = None) -> tuple[int, str, str]:
        return run("eval", "--data", "data", "--evaluator", "evaluator", "--threads", 1, *more, by=by)

    return of


@pytest.mark.long
def test_figures_of_a_checkpoint_and_a_bundle(call: Any, tmp_path: Path) -> None:
    status, said, error = call("--checkpoint", "checkpoint", "--bundle", "bundle", "--seed", 4, "--json")
    assert status == 0, error
    found, judge = json.loads(said), open_evaluator(tmp_path / "evaluator")
    assert found["evaluator"] == judge.sha256 and found["seed"] == 4 and found["inception"] is None
    assert [(each["split"], each["pictures"], each["side"]) for each in found["data"]] == [
        ("validation", 6, 32), ("test", 5, 32),
    ]  # fmt: skip
    assert [(each["of"], each["split"]) for each in found["generation"]] == [
        ("checkpoint", "validation"), ("checkpoint", "test"), ("bundle", "validation"), ("bundle", "test"),
    ]  # fmt: skip

    pictures = read_pictures(tmp_path / "data" / "validation", 32)
    real = judge.model.features(stacked(list(pictures.images)))
    pipeline = load(tmp_path / "bundle", threads=1)
    drawn = pipeline.generate([own[0] for own in pictures.captions], seed=range(4, 10))
    features = judge.model.features(stacked([np.asarray(image) for image in drawn]))
    (row,) = [each for each in found["generation"] if (each["of"], each["split"]) == ("bundle", "validation")]
    assert row["frechet"] == pytest.approx(frechet_distance(real, features), rel=1e-4)
    assert (row["among"], row["groups"], row["pictures"]) == (6, 1, 6) and row["seconds_per_picture"] > 0
    assert row["r@1_spread"] is None  # one group has no spread
    assert found["real"][0]["frechet"] == pytest.approx(frechet_distance(real[::2], real[1::2]), rel=1e-4)

    hart = load_checkpoint(tmp_path / "checkpoint").model
    expected = measure(hart.autoencoder, hart.quantizer, pictures.images)
    rebuilt, of_test = found["reconstruction"]
    assert (rebuilt["split"], of_test["split"], of_test["pictures"]) == ("validation", "test", 5)
    assert rebuilt["continuous"]["psnr"] == pytest.approx(expected.continuous.psnr)
    assert rebuilt["discrete"]["ssim"] == pytest.approx(expected.discrete.ssim)
    assert (rebuilt["codes_used"], rebuilt["codes"]) == (expected.codes_used, 16)
    assert rebuilt["discrete"]["frechet"] > 0
    discrete = torch.cat([each[2] for each in both_paths(hart.autoencoder, hart.quantizer, pictures.images)])
    features, prompts = judge.model.features(discrete), [own[0] for own in pictures.captions]
    at = retrieval(judge.model.embed_images(features), judge.embed_prompts(prompts), 4).at
    assert (rebuilt["discrete"]["r@1"], rebuilt["discrete"]["r@5"]) == (at[1], at[5])


@pytest.mark.long
def test_familiar_prompts_are_a_split_of_their_own(call: Any, tmp_path: Path) -> None:
    tiny_evaluator.write_data(tmp_path / "data", {"train": 9}, "w{}")
    wanted = ("--bundle", "bundle", "--only", "generation", "--familiar", 5, "--json")
    status, said, error = call(*wanted)
    assert status == 0, error
    found = json.loads(said)
    assert [(each["split"], each["pictures"]) for each in found["data"]] == [
        ("validation", 6), ("test", 5), ("familiar", 5),
    ]  # fmt: skip
    assert found["generation"][-1]["split"] == found["real"][-1]["split"] == "familiar"


@pytest.mark.long
def test_the_table_names_what_was_measured_and_with_which_evaluator(call: Any, tmp_path: Path) -> None:
    status, said, error = call("--checkpoint", "checkpoint", "--pictures", 4)
    assert status == 0, error
    lines = said.splitlines()
    assert lines[0] == f"evaluator {open_evaluator(tmp_path / 'evaluator').sha256[:16]}, seed 0"
    assert lines[1].startswith("validation: 4 pictures of 32 px, data ")
    assert lines[2].startswith("test: 4 pictures of 32 px, data ")
    assert (
        " ".join(lines[4].split()) == "reconstruction split pictures path PSNR dB SSIM Frechet R@1 % R@5 % codes used"
    )
    assert " ".join(lines[13].split()) == "generation split pictures Frechet R@1 % R@5 % s/picture"
    assert [line.split()[0] for line in lines[14:18]] == ["real", "real", "checkpoint", "checkpoint"]
    assert "is among the k closest of 4; mean of 1" in said and "±" not in said  # one group has no spread


@pytest.mark.long
def test_same_seed_same_figures(call: Any) -> None:
    def figures(*more: object) -> dict[str, Any]:
        status, said, error = call("--checkpoint", "checkpoint", "--only", "generation", "--json", *more)
        assert status == 0, error
        rows = json.loads(said)["generation"]
        return {row["split"]: row["frechet"] for row in rows}

    assert figures() == figures()
    assert figures("--seed", 1) != figures() != figures("--no-smooth", "--top-k", 1)


@pytest.mark.long
@pytest.mark.slow
def test_a_cluster_gives_the_same_figures(call: Any) -> None:
    """Half a minute: python -m pytest -m slow tests/cli/test_eval.py"""
    pytest.importorskip("ray", reason="needs pip install 'hart-edge[ray]'")
    only = ("--only", "generation", "--bundle", "bundle", "--seed", 3, "--json")
    here, there = (json.loads(call(*only, *more)[1]) for more in ((), ("--address", "local")))
    for found in (here, there):
        for drawn in found["generation"]:
            drawn.pop("seconds_per_picture", None)
    assert here == there


def test_the_checkpoints_own_settings(call: Any, tmp_path: Path) -> None:
    """The settings of sampling.json apply unless options override them."""

    def figures(*more: object) -> list[float]:
        status, said, error = call("--checkpoint", "checkpoint", "--only", "generation", "--json", *more)
        assert status == 0, error
        return [row["frechet"] for row in json.loads(said)["generation"]]

    asked, published = figures("--top-p", 0.1, "--no-smooth"), figures("--top-p", 1, "--smooth")
    (tmp_path / "checkpoint" / "sampling.json").write_text('{"top_p": 0.1, "smooth": false}', "utf-8")
    assert figures() == asked != published == figures("--top-p", 1, "--smooth")


@pytest.mark.long
def test_only_reconstruction_draws_nothing(call: Any) -> None:
    status, said, _ = call("--checkpoint", "checkpoint", "--only", "reconstruction", "--json")
    found = json.loads(said)
    assert status == 0 and found["generation"] == [] == found["real"] and len(found["reconstruction"]) == 2


@pytest.mark.long
def test_data_without_a_test_split(call: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "data" / "test").rename(tmp_path / "elsewhere")
    with caplog.at_level(logging.INFO):
        status, said, _ = call("--bundle", "bundle", "--json")
    assert status == 0 and [each["split"] for each in json.loads(said)["generation"]] == ["validation"]
    assert "data: has no test/, so only validation is measured" in caplog.text
    assert "6 pictures to draw" in caplog.text


def test_progress_says_how_long_it_will_be(caplog: pytest.LogCaptureFixture) -> None:
    seconds = iter([0.0, 1.0, 3.0, 10.0, 20.0, 30.0])  # at the start, and after each item
    with caplog.at_level(logging.INFO):
        assert list(with_progress("drawing", "abcde", 5, lambda: next(seconds))) == list("abcde")
    assert [record.getMessage() for record in caplog.records] == [
        "drawing: 2 of 5, 4 s left",  # after FIRST seconds
        "drawing: 4 of 5, 5 s left",  # EVERY seconds later
    ]


def test_prompts_that_are_cut_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    with (
        caplog.at_level(logging.INFO),
        pytest.warns(UserWarning, match="another") as seen,
        log_truncated_prompts("bundle"),
    ):
        warnings.warn(PromptTruncatedWarning("the prompt has 30 tokens"), stacklevel=1)
        warnings.warn("another", UserWarning, stacklevel=1)
    assert len(seen) == 1
    assert "bundle: 1 prompts are read by their first tokens alone" in caplog.text


@pytest.mark.long
def test_inception_gives_a_second_distance(call: Any) -> None:
    def bright(images: torch.Tensor) -> torch.Tensor:
        return images.float().mean((2, 3))

    def by(a: Namespace) -> int:
        return evaluate.run(a, lambda file: Inception(bright, "ab" * 32))

    status, said, _ = call("--bundle", "bundle", "--inception", "weights.pth", "--json", by=by)
    found = json.loads(said)
    assert status == 0 and found["inception"] == "ab" * 32
    assert all(row["fid"] > 0 and row["fid"] != row["frechet"] for row in found["generation"])


@pytest.mark.long
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ((), "expected --checkpoint DIR or --bundle DIR, found neither"),
        (("--bundle", "bundle", "--only", "reconstruction"), "expected --checkpoint DIR, found only bundles"),
        (("--bundle", "bundle", "--pictures", 3), "--pictures: expected at least 4, found 3"),
        (("--bundle", "bundle", "--seed", -1), "seed: expected"),
        (("--bundle", "bundle", "--cfg-scale", 101), "cfg_scale: expected 0 to 100, found 101.0"),
        (("--checkpoint", "checkpoint", "--top-k", 17), "top_k: expected 1 to 16, found 17"),
        (("--checkpoint", "checkpoint", "--top-p", 0), "top_p: expected above 0 and at most 1, found 0.0"),
        (("--checkpoint", "nowhere"), "nowhere: no such checkpoint folder"),
        (("--bundle", "bundle", "--inception", "nowhere.pth"), "--inception nowhere.pth: no such file"),
        (("--bundle", "bundle", "--data", "nowhere"), "nowhere/validation"),
    ],
)
def test_bad_input(call: Any, more: tuple[object, ...], message: str) -> None:
    status, said, error = call(*more)
    assert said == "" and message in error and error.count("error: ") == 1
    missing = "nowhere" in message and not message.startswith("--inception")
    assert (status, error.startswith("usage: hart-edge eval ")) == ((1, False) if missing else (2, True))


@pytest.mark.long
def test_a_checkpoint_without_text_model(call: Any, tmp_path: Path) -> None:
    (tmp_path / "checkpoint" / "text_model").rename(tmp_path / "text_model")
    status, _, error = call("--checkpoint", "checkpoint")
    assert status == 1 and "checkpoint: expected text_model/, which prompts are read by, found none" in error
    assert call("--checkpoint", "checkpoint", "--only", "reconstruction")[0] == 0


def test_a_missing_package_is_named(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    status, _, error = call("--bundle", "bundle")
    assert status == 1
    assert error == "error: evaluation needs torchmetrics, which is not installed; pip install 'hart-edge[train]'\n"
