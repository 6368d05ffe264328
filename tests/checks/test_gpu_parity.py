"""`hart-edge doctor --gpu-check` on the fake device: what it compares, measures, writes and refuses."""

import dataclasses
import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hart_edge.bundle.manifest import Precision, parse, to_json
from hart_edge.bundle.verify import open_bundle
from hart_edge.checks import gpu_timing
from hart_edge.checks.gpu_mix import mix
from hart_edge.checks.gpu_parity import Check, PictureCheck, compare, difference
from hart_edge.checks.gpu_timing import Timing
from hart_edge.cli import gpu_check as command
from hart_edge.cli.main import main
from hart_edge.engines.loading import load
from hart_edge.errors import InputError
from tests.cli.command_line import Run
from tests.engines.tensorrt.engine_bundle import install, make_engine_bundle
from tests.engines.tensorrt.fake_tensorrt import Context, FakeTensorRT
from tests.runtime.words_bundle import make_words_bundle

STEPS = [
    ("text_model", None),
    ("transformer", 0), ("tokens", 0), ("latent", 0),
    ("transformer", 1), ("tokens", 1), ("latent", 1),
    ("decoder", None),
]  # fmt: skip


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words_bundle(tmp_path_factory.mktemp("check") / "words")


@pytest.fixture(scope="module")
def engines(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_engine_bundle(words, tmp_path_factory.mktemp("check") / "int8")


@pytest.fixture(scope="module")
def others(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Engines that differ from those of `engines` in one unused byte, and in the precision of their manifest."""
    bundle = make_engine_bundle(words, tmp_path_factory.mktemp("check") / "fp16")
    manifest = parse((bundle / "manifest.json").read_bytes())
    components = tuple(dataclasses.replace(each, precision=Precision.FP16) for each in manifest.components)
    changed = dataclasses.replace(manifest, precision=Precision.FP16, components=components)
    (bundle / "manifest.json").write_bytes(to_json(changed))
    return bundle


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    return install(monkeypatch)


def checked(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = main(["doctor", "--gpu-check", *map(str, arguments), "--prompt", "w1 w2", "--pictures", "3", "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_every_graph_at_every_scale_and_whole_pictures(
    words: Path, engines: Path, tmp_path: Path, fake: FakeTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    status, found = checked(capsys, engines, "--reference", words, "--report", tmp_path / "report.json")
    assert status == 0 and found["ok"]
    assert [(each["graph"], each["scale"]) for each in found["graphs"]] == STEPS
    assert all(each["error"] == 0 and each["ok"] for each in found["graphs"])
    assert found["graphs"][2]["agreement"] == 1.0
    assert [(each["seed"], each["difference"], each["ok"]) for each in found["pictures"]] == [
        (seed, 0.0, True) for seed in (7, 8, 9)
    ]
    timing = found["timing"]
    assert [scale for scale, _ in timing["scales"]] == [None, 0, 1, None] and timing["captured"] == [None, 0, 1, None]
    assert timing["graphs"].keys() == {graph for graph, _ in STEPS} and timing["picture"] > 0
    assert (timing["buffers"], timing["activations"], timing["memory"]) == (5120, 1000, 6120)
    assert found["library"] == "TensorRT-RTX 1.7.1.116" and found["device"]["architecture"] == "sm_89"
    assert json.loads((tmp_path / "report.json").read_text()) == found


@pytest.mark.long
def test_an_engine_that_computes_something_else_fails(
    words: Path, engines: Path, fake: FakeTensorRT, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Context._run

    def spoil(context: Context) -> None:
        run(context)
        if context.engine.name == "latent":
            context._view("f_hat", (1, 4, 2, 2))[...] += 1

    monkeypatch.setattr(Context, "_run", spoil)
    status, found = checked(capsys, engines, "--reference", words)
    assert status == 1 and not found["ok"]
    wrong = [(each["graph"], each["scale"]) for each in found["graphs"] if not each["ok"]]
    assert wrong == [("latent", 0), ("latent", 1)]  # the decoder computes correctly from the inputs that it was given
    assert main(["doctor", "--gpu-check", str(engines), "--reference", str(words), "--prompt", "w1"]) == 1
    assert "FAILED: see the lines above" in capsys.readouterr().out


def timing(**graphs: float) -> Timing:
    return Timing(((None, 1.0), (0, 2.0)), dict(graphs), sum(graphs.values()), 3, (None,), 9_000, 5_120, 1_000)


@pytest.mark.long
def test_int8_is_dropped_where_it_is_slower_and_the_report_says_so(
    words: Path, engines: Path, others: Path, tmp_path: Path, fake: FakeTensorRT, run: Run
) -> None:
    manifest = parse((others / "manifest.json").read_bytes())
    times = iter([timing(transformer=5.0, decoder=9.0), timing(transformer=8.0, decoder=7.0)] * 2)

    def by(a: Namespace) -> int:
        return command.run(a, lambda *_: next(times))

    given = ("doctor", "--gpu-check", engines, "--reference", words, "--against", others, "--prompt", "w1")
    status, out, _ = run(*given, "--mixed", tmp_path / "mixed", by=by)
    lines = out.splitlines()
    assert status == 0
    assert "fp32 14.0 ms a picture, fp16 15.0 ms" in lines
    assert "fp32 is slower than fp16 in decoder: 9.00 ms against 7.00 ms" in lines
    assert f"{tmp_path / 'mixed'}: these graphs at fp16, the others at fp32" in lines
    mixed = open_bundle(tmp_path / "mixed").manifest  # opening it verifies every hash
    assert {each.name: each.precision for each in mixed.components if each.precision is Precision.FP16} == {
        "decoder": Precision.FP16
    }
    assert mixed.components[-1] == manifest.components[-1]
    status, out, _ = run(*given, by=by)
    assert status == 0
    assert f"drop fp32 there: --mixed OUT writes a bundle that takes these graphs from {others}" in out


def test_int8_that_is_faster_everywhere(
    words: Path, engines: Path, others: Path, tmp_path: Path, fake: FakeTensorRT, run: Run
) -> None:
    times = iter([timing(transformer=5.0), timing(transformer=8.0)])

    def by(a: Namespace) -> int:
        return command.run(a, lambda *_: next(times))

    given = ("doctor", "--gpu-check", engines, "--reference", words, "--against", others, "--prompt", "w1")
    status, out, _ = run(*given, "--mixed", tmp_path / "mixed", "--json", by=by)
    found = json.loads(out)
    assert status == 0 and found["against"]["slower"] == {} and found["against"]["mixed"] is None
    assert not (tmp_path / "mixed").exists()
    assert "fp32 is faster in every graph" in command.verdict(found)


def test_measuring_does_not_change_pictures(words: Path, engines: Path, fake: FakeTensorRT) -> None:
    pipeline, free = command.open_engines(engines)
    found = gpu_timing.measure(pipeline, free, "w1", pictures=2)
    assert found.pictures == 2 and found.captured == (None, 0, 1, None)
    expected = load(words, threads=1).generate("w2", seed=5)
    assert pipeline.generate("w2", seed=5).tobytes() == expected.tobytes()


# Comparing.


def test_differences() -> None:
    one = np.array([1.0, -4.0])
    assert difference(one, one) == 0 and difference(one, one + 1) == 0.25
    assert difference(one, np.array([1.0, np.nan])) == float("inf")
    assert difference(np.array([], np.float32), np.array([], np.float32)) == 0
    assert difference(np.array([200], np.uint8), np.array([149], np.uint8)) == 0.2
    assert difference(np.array([True]), np.array([False])) == 1


def test_codes_are_compared_by_the_share_that_agrees() -> None:
    logits = np.ones((1, 10, 4), np.float32)
    latent = np.zeros((1, 10, 2), np.float32)
    other = latent.copy()
    other[0, 0] = 1
    check = compare("tokens", 3, {"logits": logits, "latent": latent}, {"logits": logits, "latent": other}, 0.1)
    assert check == Check("tokens", 3, "logits", 0.0, 0.1, 0.9) and check.ok
    other[0, 1] = 1
    assert not compare("tokens", 3, {"latent": latent}, {"latent": other}, 0.1).ok
    assert compare("latent", 3, {"latent": latent}, {"latent": other}, 0.1).error > 1  # latents by their error


def test_a_picture_that_differs_too_much_or_is_missing_fails() -> None:
    assert PictureCheck(7, 25.0, None).ok
    assert not PictureCheck(7, 25.1, None).ok and not PictureCheck(7, 0.0, "no picture").ok


# Refusals.


def test_bundles_that_do_not_belong_together(
    words: Path, engines: Path, tmp_path: Path, fake: FakeTensorRT, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: object) -> str:
        with pytest.raises(SystemExit) as caught:
            main(["doctor", "--gpu-check", *map(str, arguments), "--prompt", "w1"])
        assert caught.value.code == 2
        return capsys.readouterr().err

    assert "--gpu-check: expected --reference GRAPHS, the bundle of graphs that the engines" in refused(engines)
    assert "--gpu-check: expected a bundle of engines, found graphs for cpu" in refused(words, "--reference", words)
    assert "--reference: expected a bundle of graphs, found engines" in refused(engines, "--reference", engines)
    assert "--report" in refused(engines, "--reference", words, "--report", tmp_path / "none" / "r.json")


def test_mixing_refuses_what_does_not_fit(engines: Path, others: Path, words: Path, tmp_path: Path) -> None:
    int8, fp16 = open_bundle(engines), open_bundle(others)
    with pytest.raises(InputError, match="expected a new name, found something there; name another folder"):
        mix(int8, fp16, {"decoder"}, tmp_path)
    with pytest.raises(InputError, match="expected FP16 engines of the same model for the same target"):
        mix(int8, open_bundle(words), {"decoder"}, tmp_path / "mixed")
    changed = dataclasses.replace(fp16.manifest.components[-1], file="engines/other.engine")
    altered = dataclasses.replace(fp16.manifest, components=(*fp16.manifest.components[:-1], changed))
    with pytest.raises(
        InputError, match="decoder has other tensors in FP16 than in INT8; build both with this version"
    ):
        mix(int8, dataclasses.replace(fp16, manifest=altered), {"decoder"}, tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()
