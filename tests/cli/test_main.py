"""The command line: how every command ends, and what info and golden print."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

import hart_edge
from hart_edge.cli.main import main
from hart_edge.cli.tables import quoted, table
from hart_edge.errors import InputError, OutOfMemoryError
from tests.cli.command_line import PROMPT, ROOT, Run, process
from tests.conftest import GOLDEN

# Exit statuses.


def test_missing_bundles_name_the_command_that_builds_one(run: Run) -> None:
    for arguments in (("generate", PROMPT), ("generate", PROMPT, "--bundle", "nowhere"), ("info", "nowhere")):
        status, out, err = run(*arguments)
        assert (status, out) == (1, "")
        assert err.startswith("error: ") and "python -m export.build --precision int8" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("draw",),
        ("generate",),
        ("generate", PROMPT, "--context", "words.npz"),
        ("generate", PROMPT, "--seed", "seven"),
        ("generate", PROMPT, "--bundel", "b"),
        ("generate", PROMPT, "--see", "7"),  # no abbreviations: a later option could change their meaning
        ("info",),
        ("golden",),
        ("doctor", "now"),
    ],
)
def test_wrong_arguments_exit_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    status, out, err = run(*arguments)
    command = f" {arguments[0]}" if arguments and arguments[0] != "draw" else ""
    assert (status, out) == (2, "") and err.startswith(f"usage: hart-edge{command} ")


@pytest.mark.parametrize(
    ("typed", "end"),
    [("genrate", "did you mean generate?"), ("draw", "see --help for what they do")],
)
def test_a_word_that_is_no_command_is_told_what_is(run: Run, typed: str, end: str) -> None:
    status, _, err = run(typed, PROMPT)
    assert status == 2
    assert "error: expected a command, one of generate, encode, " in err and f"found {typed!r}; {end}\n" in err


@pytest.mark.long
def test_version_and_both_entry_points(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0 and capsys.readouterr().out == f"hart-edge {hart_edge.__version__}\n"
    done = process("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"hart-edge {hart_edge.__version__}\n")


def test_a_signal_ends_a_process_without_a_traceback(int8_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hart_edge", "generate", *[PROMPT] * 500, "--bundle", str(int8_bundle)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    working = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert working.stdout is not None and working.stdout.readline().startswith(b"picture-1.png: ")
    working.send_signal(signal.SIGINT)
    _, err = working.communicate(timeout=30)
    assert (working.returncode, err) == (130, b"interrupted\n")
    assert [name for name in os.listdir(tmp_path) if not name.endswith(".png")] == []  # no half-written file


def test_a_closed_pipe_is_no_error(int8_bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hart_edge", "info", str(int8_bundle)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    working = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    assert working.stdout is not None
    working.stdout.close()
    _, err = working.communicate(timeout=30)
    assert (working.returncode, err) == (141, b"")


def test_a_prompt_that_the_terminal_cannot_show(int8_bundle: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "hart_edge", "generate", "a caf\u00e9", "--bundle", str(int8_bundle)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith('picture.png: "a caf\\xe9", seed 0, ')


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (PermissionError(13, "Permission denied", "b/m.json"), 1, "error: [Errno 13] Permission denied: 'b/m.json'\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (KeyboardInterrupt("nothing was written to b"), 130, "interrupted; nothing was written to b\n"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_exceptions_of_a_command_become_exit_statuses(run: Run, error: BaseException, status: int, said: str) -> None:
    def by(_: Namespace) -> int:
        raise error

    assert run("info", "bundle", by=by) == (status, "", said)


def test_a_usage_error_ends_with_the_usage_of_the_command(run: Run) -> None:
    def by(_: Namespace) -> int:
        raise InputError("seed: expected 0")

    usage = "usage: hart-edge info [-h] [--macs] [--json] BUNDLE\n"
    assert run("info", "bundle", by=by) == (2, "", f"{usage}hart-edge info: error: seed: expected 0\n")


# info


def test_info_is_a_table(run: Run, int8_bundle: Path) -> None:
    status, out, err = run("info", int8_bundle)
    assert (status, err) == (0, "")
    manifest = json.loads((int8_bundle / "manifest.json").read_bytes())
    facts = dict(line.split("  ", 1) for line in out.split("\n\n")[0].splitlines())
    facts = {name: value.strip() for name, value in facts.items()}
    assert facts["name"] == manifest["name"] and facts["target"] == "cpu"
    assert facts["image"] == "128 x 128 pixels, 7 scales: 1 2 3 4 5 6 8"
    assert facts["takes"] == "a prompt of up to 24 tokens"
    assert facts["sampling"] == "cfg_scale 1, top_k 600, top_p 0.5, smooth off, speed exact; 8 residual steps"
    assert facts["speeds"] == "exact, balanced, fast"
    assert facts["styles"] == "3d, flat, noto; a prompt ends with a comma and one of them"
    assert facts["examples"].startswith("penguin, hamburger, ")
    assert facts["calibration"].startswith("20 prompts, ranges ")
    near = r"top-1 \S+ % \(scale \d\) or more, KL \S+ \(scale \d\) or less, decoder \S+ dB, on 8 prompts"
    assert re.fullmatch(near, facts["quality"])
    assert "onnxruntime " in facts["built with"]
    head, *rows = out.split("\n\n")[1].splitlines()
    assert head.split() == ["component", "precision", "scheme", "parameters", "bytes", "error", "of"]
    assert len(rows) == len(manifest["components"]) + 1
    for row, component in zip(rows, manifest["components"], strict=False):
        cells = re.split(r"  +", row)
        assert cells == [
            component["name"],
            component["precision"],
            component["scheme"],
            f"{component['parameters']:,}",
            f"{component['bytes']:,}",
            f"{component['max_error']:.1e}",
            component["worst_tensor"],
        ]
    total = sum(component["bytes"] for component in manifest["components"])
    assert re.split(r"  +", rows[-1])[0] == "all" and f"{total:,}" in rows[-1]


def test_info_as_json(run: Run, int8_bundle: Path) -> None:
    status, out, _ = run("info", int8_bundle, "--json")
    found, manifest = json.loads(out), json.loads((int8_bundle / "manifest.json").read_bytes())
    assert status == 0
    same = (
        "name",
        "precision",
        "target",
        "image_size",
        "patch_nums",
        "sampling",
        "calibration",
        "quality",
        "licences",
        "tools",
    )
    for key in same:
        assert found[key] == manifest[key], key
    assert found["bytes"] == sum(entry["bytes"] for entry in manifest["files"].values())
    assert found["takes"] == "prompt" and found["residual_steps"] == 8
    keys = ("name", "precision", "scheme", "parameters", "bytes", "max_error", "worst_tensor")
    assert found["components"] == [{key: each[key] for key in keys} for each in manifest["components"]]


def test_info_of_a_bundle_that_takes_a_context(run: Run, plain_bundle: Path) -> None:
    _, out, _ = run("info", plain_bundle)
    assert re.search(r"^takes +a context array \(10, 56\); it holds no text model$", out, re.MULTILINE)
    assert re.search(r"^calibration +none$", out, re.MULTILINE)
    assert json.loads(run("info", plain_bundle, "--json")[1])["takes"] == "context"


def test_info_refuses_an_altered_bundle(run: Run, plain_bundle: Path, tmp_path: Path) -> None:
    spoilt = shutil.copytree(plain_bundle, tmp_path / "spoilt")
    (spoilt / "README.md").write_text((spoilt / "README.md").read_text().swapcase())
    status, out, err = run("info", spoilt)
    assert (status, out) == (1, "") and re.match(r"error: README\.md: expected sha256 .*: the file was altered", err)


# golden


@pytest.mark.long
def test_golden_of_the_reference(run: Run) -> None:
    status, out, err = run("golden", GOLDEN / "plain")
    *lines, summary = out.splitlines()
    assert (status, err) == (0, "")
    assert len(lines) == 36 and all(line.endswith("  ok") for line in lines)
    assert re.fullmatch(r"36 records, all within tolerance; \d+\.\d s", summary)


def test_golden_records_are_made(run: Run, tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN / "plain", tmp_path / "mine", ignore=shutil.ignore_patterns("golden.npz"))
    status, out, err = run("golden", "--record", folder)
    assert (status, err) == (0, "") and re.match(
        rf"{folder}/golden\.npz: 52 records; \d+\.\d s\. Hold the checkpoint", out
    )
    status, _, err = run("golden", "--record", folder)
    assert status == 1 and err.startswith(
        f"error: {folder}/golden.npz: expected no records, found some; move them away"
    )
    assert run("golden", "--record", folder, "--bundle", "b")[0] == 2


def test_golden_of_a_bundle_as_json(run: Run, plain_bundle: Path) -> None:
    status, out, _ = run("golden", GOLDEN / "plain", "--bundle", plain_bundle, "--json")
    *records, summary = map(json.loads, out.splitlines())
    assert status == 0 and len(records) == summary["records"] == 30 and summary["failed"] == []
    assert {record["record"] for record in records} >= {"stage0.logits", "stage4.indices", "image", "residual.sample"}
    assert all(record["ok"] and 0 <= record["error"] <= record["tolerance"] for record in records)


def test_golden_fails_beyond_tolerance(run: Run, plain_bundle: Path, tmp_path: Path) -> None:
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    with np.load(GOLDEN / "plain" / "golden.npz") as archive:
        records = dict(archive)
    records["stage1.logits"] = records["stage1.logits"] + np.float32(1e-3)
    records["image"] = records["image"].copy()
    records["image"].flat[0] = np.nan
    np.savez(spoilt / "golden.npz", **records)
    status, out, _ = run("golden", spoilt, "--bundle", plain_bundle)
    *lines, summary = out.splitlines()
    assert status == 1
    assert [line.split()[0] for line in lines if line.endswith("FAILED")] == ["stage1.logits", "image"]
    assert re.match(r"stage1\.logits +1\.00\de-03  tolerance 2e-04  FAILED$", lines[4]), lines
    assert summary.startswith("30 records, 2 beyond tolerance: stage1.logits, image; ")
    status, out, _ = run("golden", spoilt, "--bundle", plain_bundle, "--json")
    *told, last = map(json.loads, out.splitlines())
    assert status == 1 and last["failed"] == ["stage1.logits", "image"]
    assert [each["error"] for each in told if each["record"] == "image"] == [None]  # JSON has no NaN


def test_golden_without_records(run: Run, tmp_path: Path, plain_bundle: Path) -> None:
    status, _, err = run("golden", tmp_path, "--bundle", plain_bundle)
    assert status == 1 and err.startswith(f"error: {tmp_path}/golden.npz: missing; ")


def test_golden_without_torch(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "hart_edge.checks.golden", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    expected = "error: the reference needs torch, which is not installed; pip install 'hart-edge[export]'\n"
    assert run("golden", GOLDEN / "plain") == (1, "", expected)


# layout


def test_tables() -> None:
    rows = [("decoder", "2,634"), ("context", "9")]
    assert table(("name", "bytes"), rows, frozenset({"bytes"})) == [
        "name     bytes",
        "decoder  2,634",
        "context      9",
    ]


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a  red\n\theart ", '"a red heart"'),
        ("\x1b[31mred\x07", '"?[31mred?"'),
        ("x" * 60, f'"{"x" * 60}"'),
        ("x" * 61, f'"{"x" * 57}..."'),
    ],
)
def test_prompts_are_shown_as_one_harmless_line(prompt: str, shown: str) -> None:
    assert quoted(prompt) == shown


@pytest.mark.long
def test_help_is_quick(tmp_path: Path) -> None:
    start = time.perf_counter()
    done = process("--help", cwd=tmp_path)
    assert done.returncode == 0 and time.perf_counter() - start < 5
    for command in ("generate", "info", "golden", "build", "calibrate", "doctor"):
        assert re.search(rf"^ +{command}\s+[A-Z]", done.stdout, re.MULTILINE)


@pytest.mark.long
def test_help_loads_neither_torch_nor_onnx_nor_an_engine_library(tmp_path: Path) -> None:
    """Not even the help of commands that need them: it must work on a device too."""
    heavy = {"torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "transformers", "accelerate"}
    program = (
        "import contextlib, sys\nfrom hart_edge.cli.main import main\n"
        "for words in ['--help'], ['build', '--help'], ['calibrate', '--help'], ['eval', '--help']:\n"
        f"    with contextlib.suppress(SystemExit):\n        main(words)\nprint(sorted({heavy} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr, done.stdout.splitlines()[-1]) == (0, "", "[]")


def test_out_of_memory_is_printed_in_the_words_of_the_error(run: Run) -> None:
    def refused(a: Namespace) -> int:
        raise OutOfMemoryError(
            "not enough memory: expected 113 MiB or more in all, found 2 MiB free", reason="bad_alloc"
        )

    status, _, err = run("doctor", by=refused)
    assert (status, err) == (1, "error: not enough memory: expected 113 MiB or more in all, found 2 MiB free\n")
