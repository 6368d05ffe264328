"""`hart-edge bench`: its figures add up, it counts the arithmetic of the model, and it refuses bad input."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest

from hart_edge.bundle.settings import Speed
from hart_edge.bundle.verify import open_bundle
from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.calib.scheme import Scheme
from hart_edge.checks.bench.measure import Measured
from hart_edge.checks.bench.onnx_bytes import product_model
from hart_edge.checks.bench.report import Subject, _apart, _bundle_row
from hart_edge.checks.macs import count_macs
from hart_edge.cli.costs import costs_of
from hart_edge.cli.main import main
from hart_edge.errors import EngineError
from hart_edge.export.activations import Graph
from hart_edge.export.costs import count_costs, multiplies
from hart_edge.reference.checkpoint import load_checkpoint
from hart_edge.reference.presets import SHIPPED_MODEL
from tests.calib.make_graphs import linear_model
from tests.cli.command_line import Run
from tests.conftest import GOLDEN
from tests.engines.tensorrt.engine_bundle import make_engine_bundle
from tests.runtime.words_bundle import make_words_bundle


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words_bundle(tmp_path_factory.mktemp("bench") / "words")


def measured(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["bench", *map(str, arguments), "--prompt", "w1 w2", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.long
def test_the_figures_add_up(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = measured(
        capsys, words, words, "--reference", GOLDEN / "adaln", "--rounds", 2, "--pictures", 3, "--threads", 1
    )
    assert (report["rounds"], report["pictures"], report["threads"]) == (2, 3, 1)
    first, second, reference, bf16 = report["subjects"]
    assert first["name"] == second["name"] == str(words)
    assert [each["name"] for each in (reference, bf16)] == [
        f"torch, {arithmetic}, {GOLDEN / 'adaln'}" for arithmetic in ("float32", "bfloat16")
    ]
    assert first["again_s"] > 0 and reference["again_s"] is bf16["again_s"] is None
    assert first["against_the_first"] == 1 and reference["against_the_first"] > 0
    assert first["bytes"] == sum(path.stat().st_size for path in words.rglob("*") if path.is_file())
    for subject in report["subjects"]:
        assert subject["loop_s"] > 0 and 0 < subject["decoder_s"] < subject["picture_s"] < subject["first_s"] * 1000
        assert subject["peak_bytes"] > 2**24
    assert reference["peak_bytes"] > 2 * first["peak_bytes"]  # torch, measured in a process of its own
    assert set(first["peak_macs_per_second"]) == {"float32", "INT8"} and "peak_macs_per_second" not in reference
    assert all(0 <= graph["share_of_peak"] <= 1 for subject in (first, second) for graph in subject["graphs"])
    plan = open_bundle(words).manifest.plan
    assert sum(graph["runs"] for graph in first["graphs"]) == len(plan.steps)
    for graph in first["graphs"]:
        assert graph["seconds"] > 0 and graph["macs_per_second"] == pytest.approx(graph["macs"] / graph["seconds"])
    assert [(scale["scale"], scale["tokens"]) for scale in first["scales"]] == [(0, 1), (1, 4)]
    assert sum(scale["macs"] for scale in first["scales"]) <= sum(graph["macs"] for graph in first["graphs"])


@pytest.mark.long
def test_the_text_report_explains_its_columns(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(words), "--pictures", "1", "--prompt", "w1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("one thread a core; medians of 1 x 1 pictures after a first, batch 1 with guidance")
    assert lines[2].startswith("| bundle | MB | open, s |") and lines[4].startswith(f"| {words} |")
    columns = ("MB", "open", "loop", "same prompt again", "against the first", "runs", "GMAC", "of the peak", "scale")
    assert [each for each in columns if f"{each}:" not in "\n".join(lines).replace(", ", ": ")] == []
    for above, line in pairwise(lines):
        if above.startswith("|") and line.startswith("|"):
            assert above.count("|") == line.count("|")


def test_the_arithmetic_is_the_models(fp32_bundle: Path, int8_bundle: Path) -> None:
    """Counts from the graphs, as they run, against counts from the reference, of which no step is run.

    A bundle skips scale 0 of the unconditional branch; at later scales its context tokens are a single key. An INT8
    decoder convolves before it upsamples.
    """
    loaded = load_checkpoint(SHIPPED_MODEL)
    config = loaded.model.config
    expected: dict[str, int] = {}
    for each in count_macs(config, loaded.model.tokenizer_config):
        both = 2 if each.guided else 1
        saved = 0
        if each.component == "transformer" and each.scale == 0:
            saved = each.layers + each.attention
        elif each.component == "transformer":
            keys = config.context_token - 1
            saved = 2 * config.depth * config.embed_dim * config.patch_nums[each.scale] ** 2 * keys
        expected[each.component] = expected.get(each.component, 0) + both * (each.layers + each.attention) - saved
    for folder in (fp32_bundle, int8_bundle):
        bundle = open_bundle(folder)
        found: dict[str, int] = {}
        for step, macs in zip(bundle.manifest.plan.steps, costs_of(bundle).steps, strict=True):
            found[str(step.graph)] = found.get(str(step.graph), 0) + macs.macs
        (decoder,) = (each for each in bundle.manifest.components if each.name == "decoder")
        saved = 0
        if decoder.scheme == Scheme.U8S8_CHANNELS:
            for number, level in enumerate(loaded.model.autoencoder.decoder.up[1:]):
                saved += 5 * level.upsample.conv.weight[:, :, 0, 0].numel() * (loaded.model.image_size >> number) ** 2
        assert {name: found[name] for name in ("transformer", "decoder", "embed")} == {
            "transformer": expected["transformer"],
            "decoder": expected["decoder"] - saved,
            "embed": expected["embed"],
        }


@pytest.mark.parametrize("scheme", [Scheme.U8S8, Scheme.DYNAMIC, Scheme.INT8_WEIGHTS])
def test_matrix_products_count_alike_in_every_scheme(tmp_path: Path, scheme: Scheme) -> None:
    ranges = {"x": (-4.0, 4.0), "r": (0.0, 4.0)}
    counts = set()
    for each in (Scheme.FLOAT32, scheme):
        onnx.save_model(apply_scheme(linear_model(), each, ranges), tmp_path / f"{each.name}.onnx")
        counts.add(multiplies(Graph(tmp_path / f"{each.name}.onnx").resolve({"x": (32, 64)})))
    assert len(counts) == 1 and counts.pop() > 32 * 64


def test_a_graph_faster_than_the_matrix_products_raises_the_peak(words: Path) -> None:
    """A busy machine may slow the products down: then the fastest graph is the peak, so no share is above 1."""
    bundle = open_bundle(words)
    steps = tuple(0.001 for _ in bundle.manifest.plan.steps)
    slow = Measured(0.1, 0.1, (0.1,), (steps,), 2**25, {"float32": 1.0, "INT8": 1.0})
    subject = Subject(bundle, Speed.EXACT, count_costs(bundle.manifest, words).steps)
    row = _bundle_row(subject, [slow])
    shares = [graph["share_of_peak"] for graph in row["graphs"]]
    assert max(shares) == 1 and row["peak_macs_per_second"]["float32"] == max(
        graph["macs_per_second"] for graph in row["graphs"]
    )
    fast = replace(slow, products={"float32": 1e15, "INT8": 1e15})
    assert max(graph["share_of_peak"] for graph in _bundle_row(subject, [slow, fast])["graphs"]) < 1e-3


def test_the_peak_models_are_valid_for_onnx() -> None:
    """We write the bytes of these models ourselves, because devices lack the onnx package."""
    generator = np.random.default_rng(0)
    for weight, given, made in (
        (generator.standard_normal((3, 300), np.float32), "float32", "float32"),
        (generator.integers(-64, 64, (3, 300), np.int8), "uint8", "int32"),
    ):
        operator = "MatMul" if made == "float32" else "MatMulInteger"
        model = onnx.load_from_string(product_model(operator, weight, 2, given, made))
        onnx.checker.check_model(model, full_check=True)
        assert np.array_equal(onnx.numpy_helper.to_array(model.graph.initializer[0]), weight)
        x = generator.integers(0, 9, (2, 3)).astype(given)
        (y,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": x})
        assert (
            np.allclose(y, x.astype(np.float64) @ weight.astype(np.float64), rtol=1e-5, atol=1e-5) and y.dtype == made
        )


@pytest.mark.long
def test_bad_input(words: Path, tmp_path: Path, run: Run) -> None:
    engines = make_engine_bundle(words, tmp_path / "engines")
    for arguments, message in (
        ([words, "--pictures", 0], "argument --pictures: expected 1 or more, found '0'"),
        ([words, "--rounds", 0], "argument --rounds: expected 1 or more, found '0'"),
        ([words, "--threads", 0], "argument --threads: expected an integer from 1 to 1024, found '0'"),
        ([words], "'man astronaut' has no token of this model's tokenizer"),
        ([words, "--reference", "hart-0.8b"], "--reference: expected a checkpoint's folder, or one of hart-0.7b-256,"),
        ([engines], "built for tensorrt-rtx; measure its engines with hart-edge doctor --gpu-check"),
    ):
        status, out, err = run("bench", *arguments)
        assert (status, out) == (2, "") and err.startswith("usage: hart-edge bench ")
        assert err.count("hart-edge bench: error: ") == 1 and message in err
    status, out, err = run("bench", words, tmp_path / "none")
    assert (status, out) == (1, "") and err.startswith("error: ") and err.count("\n") == 1


def end(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.long
def test_a_killed_process_is_reported() -> None:
    with pytest.raises(EngineError, match=r"^a bundle: the process that measured it was ended from outside"):
        _apart(end, "a bundle")
