"""`python -m export.build` as a user sees it: exit status, standard output and error, default names."""

from __future__ import annotations

import argparse
import json
import re
from contextlib import redirect_stderr
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hart_edge.bundle.manifest import Manifest, Precision
from hart_edge.bundle.quality import LIMITS, Limits
from hart_edge.bundle.verify import open_bundle
from hart_edge.cli.build import announcement, build_options, bundle_folder, run
from hart_edge.cli.main import build_main as main
from hart_edge.cli.main import build_parser, guarded, parser
from hart_edge.cli.main import main as command_main
from hart_edge.export.options import BuildOptions, Progress
from tests.cli.command_line import Terminal
from tests.conftest import GOLDEN, BuildCommand

CHECKPOINT = str(GOLDEN / "adaln")


def parsed(*arguments: str) -> argparse.Namespace:
    a = build_parser().parse_args(arguments)
    a.typed = ["python", "-m", "export.build", *arguments]
    return a


def options(*arguments: str) -> BuildOptions:
    return build_options(parsed(*arguments), Path("bundle"))


def test_a_line_a_step_and_two_without_a_terminal(
    build_command: BuildCommand, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Standard error tells the steps with their times; the two lines what was made, its size and its quality."""
    out = tmp_path / "bundle"
    assert build_command(["--checkpoint", CHECKPOINT, "--precision", "fp32", "--out", str(out), "--top-p", "0.75"]) == 0
    said = capsys.readouterr()
    line = rf"{re.escape(str(out))}: fp32 for cpu, \d+\.\d MB in \d+ s; largest error \d\.\de-\d\d \(\w+, \S+\)\n"
    near = r"against the reference: top-1 100 % .*, KL \S+ .*, decoder \d+\.\d dB, on 1 prompts\n"
    assert re.fullmatch(line + near, said.out), said.out
    announced, *steps = said.err.splitlines()
    assert announced == f"building {CHECKPOINT} at fp32 for cpu into {out}"
    assert steps[0].startswith(f"  reading {CHECKPOINT} ... ") and len(steps) > 10
    assert all(re.search(r"^  \w.* \.\.\. \d+\.\d s", step) for step in steps), said.err
    assert open_bundle(out).manifest.sampling.top_p == 0.75
    command = f"python -m export.build --checkpoint {CHECKPOINT} --precision fp32 --out {out} --top-p 0.75"
    assert f"\n    {command}\n" in (out / "README.md").read_text("utf-8")


def test_json(build_command: BuildCommand, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    assert build_command(["--checkpoint", CHECKPOINT, "--precision", "fp16", "--out", str(out), "--json"]) == 0
    said = capsys.readouterr()
    *steps, last = [json.loads(line) for line in said.out.splitlines()]
    assert said.err == ""
    assert [step["step"].split()[0] for step in steps] == [
        "reading",
        *["tracing"] * 9,
        "holding",
        *["running"] * 3,  # a speed each
        "comparing",
        "writing",
        "comparing",
        "writing",
    ]
    assert all(set(step) == {"step", "seconds", "bytes"} and step["seconds"] >= 0 for step in steps)
    manifest = open_bundle(out).manifest
    assert manifest.quality is not None and last["quality"] == json.loads(json.dumps(asdict(manifest.quality)))
    assert last["bundle"] == str(out)
    assert last["bytes"] == sum(entry.bytes for entry in manifest.files.values())
    assert last["components"] == {
        c.name: {"precision": c.precision, "bytes": c.bytes, "max_error": c.max_error, "in": c.worst_tensor}
        for c in manifest.components
    }


def test_terminal_shows_every_step(build_command: BuildCommand, tmp_path: Path) -> None:
    with redirect_stderr(Terminal()) as screen:
        assert (
            build_command(["--checkpoint", CHECKPOINT, "--precision", "fp32", "--out", str(tmp_path / "bundle")]) == 0
        )
    lines = screen.getvalue().split("\n")
    assert re.fullmatch(r"  tracing transformer \.\.\.\r\033\[K +\d+\.\d s +\d+\.\d MB +tracing transformer", lines[3])
    assert len(lines) == 1 + 18 + 1  # what is built, a line per step, an empty one; the report is on standard output


def test_what_a_build_is_about_to_do(tmp_path: Path) -> None:
    shipped = "building the shipped model, hart-emoji, at int8 for cpu into "
    takes = "; 2 to 8 minutes on two cores, 1 GB of memory"
    assert announcement(build_options(parsed(), tmp_path)) == f"{shipped}{tmp_path}{takes}"
    (tmp_path / "manifest.json").touch()
    replaced = ", in place of the bundle there once it is complete"
    assert announcement(build_options(parsed(), tmp_path)) == f"{shipped}{tmp_path}{replaced}{takes}"
    preset = parsed("--preset", "hart-0.7b-256", "--random-weights", "--target", "cuda")
    assert announcement(build_options(preset, Path("b"))) == "building hart-0.7b-256 at int8 for cuda into b"


def test_error_on_standard_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    for further in ([], ["--json"]):
        assert main(["--checkpoint", str(absent), "--out", str(tmp_path / "bundle"), *further]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        _, reading, error = said.err.splitlines() if not further else ("", "", said.err.rstrip("\n"))
        assert reading == ("" if further else f"  reading {absent} ...")
        assert error.startswith(f"error: {absent}: no such checkpoint folder") and "\n" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cfg-scale", "nan"], "error: cfg_scale: expected 0 to 100, found nan\n"),
        (["--min-top1", "1.5"], "error: min_top1: expected 0 to 1, found 1.5\n"),
        (["--contexts", "absent.npz"], "error: --contexts absent.npz: no such file; expected an npz with context"),
        (["--target", "tensorrt-rtx", "--architectures", "sm_87"], "target tensorrt-rtx: sm_87 is Jetson Orin"),
        (["--precision", "int8"], "no text_model/; name a file with --contexts"),
    ],
)
def test_refused(
    build_command: BuildCommand, capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = ["--checkpoint", CHECKPOINT, "--out", str(tmp_path / "bundle"), *arguments]
    if message.startswith("error: "):  # a value that cannot be meant
        with pytest.raises(SystemExit) as caught:
            build_command(given)
        assert caught.value.code == 2
    else:
        assert build_command(given) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_interrupted(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    asked: list[Path] = []

    def interrupted(options: BuildOptions, _: Progress) -> Manifest:
        asked.append(options.out)
        raise KeyboardInterrupt

    arguments = parsed("--checkpoint", CHECKPOINT, "--out", str(out))
    assert guarded(lambda a: run(a, interrupted), arguments) == 130
    announced = f"building {CHECKPOINT} at int8 for cpu into {out}"
    assert capsys.readouterr().err == f"{announced}\ninterrupted; nothing was written to {out}\n"
    assert asked == [out] and list(tmp_path.iterdir()) == []


def test_error_ends_the_open_line(tmp_path: Path) -> None:
    """On a terminal the message begins on a new line."""
    with redirect_stderr(Terminal()) as screen:
        assert main(["--checkpoint", str(tmp_path / "absent"), "--out", str(tmp_path / "bundle")]) == 1
    _, reading, error, end = screen.getvalue().split("\n")
    assert reading == f"  reading {tmp_path / 'absent'} ..." and error.startswith("error: ") and end == ""


def test_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--precision", "int4"], ["--target", "npu"], ["--no-such-option"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert capsys.readouterr().err.startswith("usage: python -m export.build")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([], "hart-emoji-int8"),
        (["--precision", "fp16"], "hart-emoji-fp16"),
        (["--target", "tensorrt-rtx"], "hart-emoji-int8-tensorrt-rtx"),
        (["--checkpoint", f"{CHECKPOINT}/"], "adaln-int8"),
        (["--checkpoint", f"{CHECKPOINT}/../plain", "--precision", "fp32", "--target", "cuda"], "plain-fp32-cuda"),
        (["--preset", "hart-0.7b-512", "--random-weights"], "hart-0.7b-512-int8-random"),
        (["--preset", "hart-0.7b-256", "--random-weights", "--target", "cuda"], "hart-0.7b-256-int8-cuda-random"),
    ],
)
def test_default_name(arguments: list[str], name: str) -> None:
    """bundles/NAME-PRECISION, followed by -TARGET unless it is cpu, and by -random for random weights."""
    assert bundle_folder(parsed(*arguments)) == Path("bundles") / name


def test_limits_can_be_moved() -> None:
    moved = ["--precision", "fp16", "--min-top1", "0.9", "--max-kl", "0.5", "--min-psnr", "30"]
    assert options().effective_limits == LIMITS[Precision.INT8]
    assert options(*moved).effective_limits == Limits(0.9, 0.5, 30.0)


def test_the_former_names_of_options_still_work() -> None:
    now = options("--int8-scheme", "static", "--range-rule", "mse", "--exclude", "a.*", "--exclude", "b")
    then = options("--int8-form", "static", "--observer", "mse", "--keep", "a.*", "--keep", "b")
    assert replace(then, command="") == replace(now, command="")
    assert now.int8_scheme == "static" and now.range_rule == "mse" and now.excluded == ("a.*", "b")


def test_both_names_of_the_build_command_take_the_same_options(capsys: pytest.CaptureFixture[str]) -> None:
    """`hart-edge build` and `python -m export.build` have the same options and defaults; each shows its own name."""
    words = ["--precision", "fp16", "--workspace", "2GB"]
    by_door, by_command = build_parser().parse_args(words), parser().parse_args(["build", *words])
    assert {**vars(by_door), "command": "build", "refuse": None} == {**vars(by_command), "refuse": None}
    for call, name in ((main, "python -m export.build"), (lambda a: command_main(["build", *a]), "hart-edge build")):
        with pytest.raises(SystemExit) as ended:
            call(["--help"])
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: {name} [-h] [--checkpoint CHECKPOINT]")


@pytest.mark.parametrize("arguments", [["--preset", "hart-0.7b-256"], ["--random-weights"]])
def test_a_preset_has_random_weights_only(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "--preset and --random-weights go together: this project ships no weights" in capsys.readouterr().err
