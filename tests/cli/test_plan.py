"""`hart-edge plan`: what it prints, its exit status, and its forecast against the memory that ONNX Runtime takes."""

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hart_edge.bundle.limits import Memory
from hart_edge.bundle.manifest import parse, to_json
from hart_edge.bundle.memory import MARGIN
from hart_edge.cli.main import main
from hart_edge.cli.plan import run as run_plan
from tests.bundle.make_bundle import file_entry
from tests.cli.command_line import Run
from tests.engines.tensorrt.engine_bundle import make_engine_bundle
from tests.runtime.words_bundle import make_words_bundle

ROOT = Path(__file__).parents[2]
MEASURED = """
import sys
from hart_edge.engines.loading import load
pipeline = load(sys.argv[1], threads=1, low_memory=sys.argv[2] == "low")
for seed in range(3):
    pipeline.generate("man astronaut", seed=seed)
for line in open("/proc/self/status"):
    if line.startswith("VmHWM:"):
        print(int(line.split()[1]) * 1024)
"""


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_words_bundle(tmp_path_factory.mktemp("plan") / "words")


def planned(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    status = main(["plan", *map(str, arguments), "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_bundles_that_fit_and_that_do_not(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = planned(capsys, words, "--memory", "1GiB")
    assert status == 0 and found["fits"] and found["changes"] == [] and found["memory"] == 2**30
    assert [each["scale"] for each in found["scales"]] == [None, 0, 1, None]
    weights = {each["name"]: each["weights"] for each in found["components"]}
    assert weights["text_model"] == 5_000  # for its node, which gathers rows of a table that stays in its file
    status, found = planned(capsys, words, "--memory", "10MB")
    assert status == 1 and not found["fits"] and len(found["changes"]) >= 1
    capsys.readouterr()


@pytest.mark.parametrize(
    ("option", "size", "message"),
    [
        ("--memory", "8 gigs", "expected a size such as 2GiB, 512MiB or 4GB, found '8 gigs'"),
        ("--memory", "8", "expected a size with its unit, such as 8GiB, or 8B for bytes, found '8'"),
        ("--workspace", "512", "expected a size with its unit, such as 512MiB, or 512B for bytes, found '512'"),
    ],
)
def test_a_size_has_a_unit(words: Path, run: Run, option: str, size: str, message: str) -> None:
    status, out, err = run("plan", words, option, size)
    assert (status, out) == (2, "") and err.startswith("usage: hart-edge plan ")
    assert err.endswith(f"hart-edge plan: error: argument {option}: {message}\n")


def test_the_limit_of_a_container_is_planned_for(words: Path, run: Run) -> None:
    memory = Memory(512 * 2**20, 300 * 2**20, 2**34, "the control group's limit")
    status, out, _ = run("plan", words, by=functools.partial(run_plan, here=lambda: memory))
    source = "free here, under the control group's limit of 512 MiB"
    assert status == 0 and out.splitlines()[0] == f"{words}: peak 82 MiB, which fits into 300 MiB ({source})"
    status, out, _ = run("plan", words, "--json", by=functools.partial(run_plan, here=lambda: Memory(9, 7, 9)))
    found = json.loads(out)
    assert (status, found["memory"], found["memory_source"], found["fits"]) == (1, 7, "free here", False)
    status, _, err = run("plan", words, by=functools.partial(run_plan, here=lambda: Memory(None, None, None)))
    assert status == 2 and "error: expected --memory SIZE, found none, and this system does not say" in err


def test_the_text_report_explains_its_columns(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(words), "--memory", "2GiB"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{words}: peak 82 MiB, which fits into 2.00 GiB"
    assert lines[2].split() == ["component", "weights", "activations", "most", "at"]
    scales = lines.index("", 3) + 1
    assert [line.split()[0] for line in lines[scales : scales + 5]] == ["scale", "before", "0", "1", "after"]
    told = "\n".join(lines)  # every column is explained; a CPU has no engines to speak of
    for column in ("weights", "activations", "keys and values", "buffers", "in all"):
        assert f"{column}: " in told, column
    assert told.count("keys and values: ") == 1 and "kept of earlier prompts, " in told
    assert "`most at`" in told and "engine" not in told and "build" not in told
    _, found = planned(capsys, words, "--memory", "2GiB")
    assert found["build"] is None and {each["build"] for each in found["components"]} == {None}


def test_a_forecast_that_just_fits_is_told_as_such(words: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for memory, told in (("90MiB", "; the peak may be 15 % higher than this forecast"), ("95MiB", "")):
        assert main(["plan", str(words), "--memory", memory]) == 0
        fit = f"{words}: peak 82 MiB, which fits into {memory.replace('MiB', ' MiB')}{told}"
        assert capsys.readouterr().out.splitlines()[0] == fit


def test_engines_are_planned_from_their_builders_reports(
    words: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_engine_bundle(words, tmp_path / "engines")
    assert main(["plan", str(bundle), "--memory", "8GiB"]) == 1
    assert "expected the builder's report engines/text_model.json, found none" in capsys.readouterr().err
    manifest = parse((bundle / "manifest.json").read_bytes())
    files = dict(manifest.files)
    for component in manifest.components:
        file = bundle / "engines" / f"{component.name}.json"
        file.write_text(json.dumps({"activation_bytes": [1000, 7_000_000]}))
        files[f"engines/{file.name}"] = file_entry(file)
    (bundle / "manifest.json").write_bytes(to_json(dataclasses.replace(manifest, files=files)))
    status, found = planned(capsys, bundle, "--memory", "8GiB")
    assert status == 0
    engines = sum(each.bytes for each in manifest.components)
    assert found["build"] >= max(each["build"] for each in found["components"]) > 0
    assert main(["plan", str(bundle), "--memory", "8GiB"]) == 0
    told = capsys.readouterr().out
    assert "its build: the most while" in told and told.splitlines()[-1].startswith("building engines: ")
    assert found["peak"] == found["process"] + engines + 7_000_000 + found["buffers"] + found["prompts"]
    most = {each["name"]: (each["activations"], each["scale"]) for each in found["components"]}
    assert most["tokens"] == (7_000_000, 0)  # the second profile of this engine, which serves scale 0
    assert most["decoder"] == (7_000_000, None)  # two numbers for one profile: the larger


@pytest.mark.long
@pytest.mark.parametrize("mode", ["usual", "low"])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_forecast_is_what_onnx_runtime_takes(
    precision: str, mode: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """Peak resident memory of a process that draws three pictures with the shipped model, within what `plan` states."""
    bundle: Path = request.getfixturevalue(f"{precision}_bundle")
    command = [sys.executable, "-c", MEASURED, str(bundle), mode]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    measured = int(done.stdout)
    _, found = planned(capsys, bundle, "--memory", "8GiB", *(["--low-memory"] if mode == "low" else []))
    assert abs(found["peak"] - measured) <= MARGIN * found["peak"], (found["peak"], measured)
