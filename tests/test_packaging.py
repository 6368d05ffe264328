"""What is shipped: a wheel that draws in a clean environment with [cpu] only, and the source distribution.

Like `pip install`, this needs a package index or a cache with numpy, pillow, tokenizers and onnxruntime.
"""

import json
import os
import statistics
import subprocess
import sys
import tarfile
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import FOLDERS, NOT_OURS, ROOT, package

ENTRY_POINTS = ("hart-edge", "python -m hart_edge")

TIME_IMPORT = """
import sys, time
start = time.perf_counter()
import hart_edge
seconds = time.perf_counter() - start
print(seconds, *sorted({"torch", "onnx", "onnxruntime", "transformers"} & set(sys.modules)))
"""


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that must succeed; the source tree is not on its path."""
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def installed(device_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a clean environment that has the wheel of a device with [cpu], and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    bin_folder = folder / "venv" / "bin"
    run(bin_folder / "python", "-m", "pip", "install", "-q", f"{device_wheel}[cpu]", cwd=folder)
    return bin_folder


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def code() -> set[str]:
    """What every wheel has under hart_edge/."""
    expected = {"hart_edge/py.typed", "hart_edge/bundle/manifest.schema.json", "hart_edge/calib/calibrate/prompts.txt"}
    for folder in FOLDERS:
        inside = "" if folder == "hart_edge" else "hart_edge/"
        files = (path for path in (ROOT / folder).rglob("*.py") if path.parent.name != "door")
        expected |= {f"{inside}{path.relative_to(ROOT).as_posix()}" for path in files}
    static = ROOT / "hart_edge" / "server" / "static"
    expected |= {path.relative_to(ROOT).as_posix() for path in static.iterdir()}
    return expected


def test_the_wheel_has_one_package_its_data_and_the_build_command(wheel: Path) -> None:
    """hart_edge with the four folders that are linked into it, and export/build.py; no other name at the top level."""
    with zipfile.ZipFile(wheel) as archive:
        entries = archive.read(next(n for n in archive.namelist() if n.endswith("/entry_points.txt"))).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert "hart-edge = hart_edge.cli.main:main" in entries
    models = {
        path.relative_to(ROOT).as_posix()
        for name in ("*.safetensors", "*.json", "*.md", "*.txt", "LICENSE")
        for path in (ROOT / "hart_edge" / "models").rglob(name)
    }
    assert sum(name.endswith(".safetensors") for name in models) == 3
    assert names_in(wheel) == {*code(), *models, "export/build.py"}


def test_the_wheel_of_a_device_holds_the_bundle_and_no_checkpoint(device_wheel: Path, int8_bundle: Path) -> None:
    bundle = {
        f"hart_edge/bundles/hart-emoji-int8/{path.relative_to(int8_bundle).as_posix()}"
        for path in int8_bundle.rglob("*")
        if path.is_file()
    }
    assert names_in(device_wheel) == {*code(), *bundle, "export/build.py"}
    assert device_wheel.stat().st_size < 22e6


def test_a_folder_that_is_no_bundle_makes_no_wheel(unpacked: Path, tmp_path: Path) -> None:
    with pytest.raises(
        AssertionError, match="HART_EDGE_BUNDLE: expected the folder of a bundle, found none in nowhere"
    ):
        package("--wheel", "--outdir", tmp_path, unpacked, cwd=tmp_path, HART_EDGE_BUNDLE="nowhere")


def test_the_source_distribution_is_the_checkout(source_distribution: Path) -> None:
    """It has every file of a clone, and the links are links, so that its own tests pass as they do here."""
    with tarfile.open(source_distribution) as archive:
        members = {member.name.split("/", 1)[-1]: member for member in archive.getmembers()}
    ours = [
        path.relative_to(ROOT)
        for path in every_file(ROOT)
        if not any(fnmatch(part, pattern) for part in path.relative_to(ROOT).parts for pattern in NOT_OURS)
    ]
    missing = {path.as_posix() for path in ours if path.suffix != ".pyc"} - members.keys()
    assert missing == set()
    links = {name: member.linkname for name, member in members.items() if member.issym()}
    assert links == {f"hart_edge/{name}": f"../{name}" for name in ("calib", "engines", "export", "runtime")} | {
        "hart_edge/door/build.py": "../../export/build.py"
    }


def every_file(folder: Path) -> list[Path]:
    """Every file below a folder; links to folders are not followed."""
    return [Path(root, name) for root, _, names in os.walk(folder) for name in names]


@pytest.mark.parametrize("module", ["torch", "onnx", "transformers"])
def test_workstation_packages_are_absent(installed: Path, tmp_path: Path, module: str) -> None:
    probe = f"import importlib.util as u; print(u.find_spec({module!r}))"
    assert run(installed / "python", "-c", probe, cwd=tmp_path).strip() == "None"


@pytest.mark.parametrize("entry", ENTRY_POINTS)
def test_a_picture_from_the_clean_environment(installed: Path, int8_bundle: Path, tmp_path: Path, entry: str) -> None:
    """`hart-edge generate PROMPT` and nothing else, in an empty folder."""
    command = [installed / "hart-edge"] if entry == "hart-edge" else [installed / "python", "-m", "hart_edge"]
    said = run(*command, "generate", "a red heart", cwd=tmp_path)
    assert said.startswith('picture.png: "a red heart", seed 0, ')
    with Image.open(tmp_path / "picture.png") as image:
        assert image.format == "PNG"
        assert image.size == (128, 128)
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    run(*command, "generate", "a red heart", "--bundle", int8_bundle.resolve(), "--out", "named.png", cwd=tmp_path)
    assert (tmp_path / "named.png").read_bytes() == (tmp_path / "picture.png").read_bytes()


def test_plan_and_bench_run_on_a_device(installed: Path, int8_bundle: Path, tmp_path: Path) -> None:
    """They need neither torch nor onnx: costs.json of the bundle says what its steps take."""
    planned = json.loads(run(installed / "hart-edge", "plan", int8_bundle, "--memory", "1GiB", "--json", cwd=tmp_path))
    assert planned["fits"] and 100e6 < planned["peak"] < 250e6
    found = run(installed / "hart-edge", "bench", int8_bundle, "--pictures", "1", "--json", cwd=tmp_path)
    (subject,) = json.loads(found)["subjects"]
    assert sum(graph["macs"] for graph in subject["graphs"]) > 1e9
    assert all(0 <= graph["share_of_peak"] <= 1 for graph in subject["graphs"])


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("build",), "export"),
        (("calibrate",), "export"),
        (("golden", "DIR"), "export"),
        (("golden", "DIR", "--record"), "export"),
        (("bench", "BUNDLE", "--reference", "hart-0.7b-256"), "export"),
        (("upgrade", "BUNDLE", "--anyway"), "export"),
        (("eval", "--data", "DIR", "--evaluator", "DIR", "--checkpoint", "DIR"), "train"),
        (("train", "tokenizer", "--data", "DIR", "--out", "out"), "train"),
        (("data", "emoji", "--out", "out"), "train"),
    ],
)
def test_commands_that_need_more_packages_name_the_extra_in_one_line(
    installed: Path, int8_bundle: Path, tmp_path: Path, arguments: tuple[str, ...], extra: str
) -> None:
    names = {"DIR": tmp_path, "BUNDLE": int8_bundle.resolve()}
    words = [str(names.get(word, word)) for word in arguments]
    done = subprocess.run([installed / "hart-edge", *words], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ") and f"pip install 'hart-edge[{extra}]'" in done.stderr, done.stderr
    assert os.listdir(tmp_path) == []


def test_import_is_quick_and_slim(installed: Path, tmp_path: Path) -> None:
    """Requirement: import hart_edge takes under 0.3 s (median of 5 processes) and loads no engine library."""
    runs = [run(installed / "python", "-c", TIME_IMPORT, cwd=tmp_path).split() for _ in range(5)]
    assert [loaded for _, *loaded in runs] == [[]] * 5
    assert statistics.median(float(seconds) for seconds, *_ in runs) < 0.3


def test_import_is_slim_where_everything_is_installed() -> None:
    """In the environment of the tests torch could be loaded, and must not be."""
    _, *loaded = run(sys.executable, "-c", TIME_IMPORT, cwd=ROOT).split()
    assert loaded == []
