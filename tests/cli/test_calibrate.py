"""`hart-edge calibrate` as a user sees it: it writes one complete file or none, which any number of builds can use."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hart_edge.bundle.verify import open_bundle
from hart_edge.calib.calibrate.ranges import CalibratedRanges, read_ranges
from hart_edge.cli.calibrate import run
from hart_edge.cli.main import guarded, main, parser
from hart_edge.export.chain import calibrate_checkpoint
from hart_edge.export.options import BuildOptions, Progress
from hart_edge.export.tools import Tools
from tests.conftest import BuildCommand
from tests.export.small_checkpoint import CHECKPOINT

Collect = Callable[..., int]


@pytest.fixture
def collect(tools: Tools) -> Collect:
    """The command, tracing every graph once per run: output file, contexts, further arguments -> exit status."""

    def call(out: Path, contexts: Path, *further: str) -> int:
        a = parser().parse_args(["calibrate", *arguments(out, contexts), *further])
        return guarded(functools.partial(run, calibrate=functools.partial(calibrate_checkpoint, tools=tools)), a)

    return call


def arguments(out: Path, contexts: Path) -> list[str]:
    return ["--checkpoint", str(CHECKPOINT), "--out", str(out), "--contexts", str(contexts)]


def test_the_same_ranges_as_a_build_of_the_same_inputs(
    collect: Collect, build_command: BuildCommand, contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ranges" / "mine.json"
    assert collect(out, contexts) == 0
    said = capsys.readouterr()
    assert f"{out}: ranges of " in said.out and "from 2 prompts" in said.out and f"--ranges {out}" in said.out
    assert [path.name for path in out.parent.iterdir()] == ["mine.json"]
    bundles = []
    for given in (["--ranges", str(out)], ["--contexts", str(contexts)]):
        bundles.append(tmp_path / f"bundle{len(bundles)}")
        assert build_command(["--checkpoint", str(CHECKPOINT), "--out", str(bundles[-1]), *given]) == 0
    assert out.read_bytes() == (bundles[0] / "calibration.json").read_bytes()
    assert out.read_bytes() == (bundles[1] / "calibration.json").read_bytes()
    calibrations = [open_bundle(bundle).manifest.calibration for bundle in bundles]
    assert calibrations[0] == calibrations[1] is not None


def test_json(collect: Collect, contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ranges.json"
    assert collect(out, contexts, "--json", "--range-rule", "mse") == 0
    *steps, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [step["step"].split()[0] for step in steps] == ["reading", *["tracing"] * 9, "holding", "calibrating"]
    found = read_ranges(out, json.loads(out.read_bytes())["weights_sha256"])
    assert last == {"out": str(out), "tensors": sum(map(len, found.graphs.values())), "sha256": found.sha256()}
    assert set(found.range_rules.values()) == {"mse"}


def test_interrupted_leaves_what_was_there(contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ranges" / "mine.json"
    out.parent.mkdir()
    out.write_text("earlier")

    def interrupted(options: BuildOptions, progress: Progress, scratch: Path) -> CalibratedRanges:
        (scratch / "transformer.onnx").write_bytes(b"half of it")
        raise KeyboardInterrupt

    a = parser().parse_args(["calibrate", *arguments(out, contexts)])
    assert guarded(lambda a: run(a, interrupted), a) == 130
    assert capsys.readouterr().err == f"interrupted; {out} was not written\n"
    assert out.read_text() == "earlier" and [path.name for path in out.parent.iterdir()] == ["mine.json"]


def test_contexts_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused of the shipped model too, which has a text model and would not read them."""
    out, absent = tmp_path / "ranges.json", tmp_path / "absent.npz"
    assert guarded(run, parser().parse_args(["calibrate", "--out", str(out), "--contexts", str(absent)])) == 1
    expected = "expected an npz with context (N, T, D) and context_mask (N, T)"
    assert capsys.readouterr().err == f"error: --contexts {absent}: no such file; {expected}\n"


def test_not_finite_names_prompt_graph_and_tensor(
    collect: Collect, contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = dict(np.load(contexts))
    given["context"][1] = np.nan
    broken = tmp_path / "broken.npz"
    np.savez(broken, **given)
    assert collect(tmp_path / "ranges.json", broken) == 1
    assert "error: calibration prompt 2: graph context, tensor " in capsys.readouterr().err
    assert not (tmp_path / "ranges.json").exists()


def test_no_prompts(contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("# none\n")
    assert main(["calibrate", "--prompts", str(prompts), "--out", str(tmp_path / "ranges.json")]) == 1
    assert "expected at least one prompt, found none; write one a line" in capsys.readouterr().err


def test_a_folder_is_no_file(
    collect: Collect, contexts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert collect(tmp_path, contexts) == 1
    assert (
        f"error: {tmp_path}: expected a file to write, found a folder; name one with --out" in capsys.readouterr().err
    )


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["calibrate", "--help"])
    assert capsys.readouterr().out.startswith("usage: hart-edge calibrate [-h] [--checkpoint CHECKPOINT] [--out OUT]")
