"""The wheel as a user has it: a clean environment with [cpu] alone makes a picture, without torch.

Needs what `pip install` needs: a package index or a cache with numpy, pillow, tokenizers and onnxruntime.
"""

import os
import statistics
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import FOLDERS, ROOT

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
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a clean environment that holds the wheel with [cpu] alone."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    bin_folder = folder / "venv" / "bin"
    run(bin_folder / "python", "-m", "pip", "install", "-q", f"{wheel}[cpu]", cwd=folder)
    return bin_folder


def test_wheel_holds_one_package_its_data_and_a_door(wheel: Path) -> None:
    """hart_edge with the four folders that are linked into it, and export/build.py; no other name at the top level."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entries = archive.read(next(n for n in archive.namelist() if n.endswith("/entry_points.txt"))).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert {name for name in names if not name.startswith("hart_edge/")} == {"export/build.py"}
    assert "hart-edge = hart_edge.cli.main:main" in entries

    expected = {"hart_edge/py.typed", "hart_edge/bundle/manifest.schema.json", "hart_edge/calib/calibrate/prompts.txt"}
    for folder in FOLDERS:
        inside = "" if folder == "hart_edge" else "hart_edge/"
        files = (path for path in (ROOT / folder).rglob("*.py") if path.parent.name != "door")
        expected |= {f"{inside}{path.relative_to(ROOT).as_posix()}" for path in files}
    static = ROOT / "hart_edge" / "server" / "static"
    expected |= {path.relative_to(ROOT).as_posix() for path in static.iterdir()}
    for ending in ("safetensors", "json", "md", "txt"):
        models = (ROOT / "hart_edge" / "models").rglob(f"*.{ending}")
        expected |= {path.relative_to(ROOT).as_posix() for path in models}
    assert names - {"export/build.py"} == expected


def test_the_shipped_model_is_in_the_wheel(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        models = [name for name in archive.namelist() if name.startswith("hart_edge/models/")]
    assert any(name.endswith(".safetensors") for name in models)
    assert any(name.endswith("tokenizer.json") for name in models)


@pytest.mark.parametrize("module", ["torch", "onnx", "transformers"])
def test_workstation_packages_are_absent(installed: Path, tmp_path: Path, module: str) -> None:
    probe = f"import importlib.util as u; print(u.find_spec({module!r}))"
    assert run(installed / "python", "-c", probe, cwd=tmp_path).strip() == "None"


@pytest.mark.parametrize("entry", ENTRY_POINTS)
def test_a_picture_from_the_clean_environment(installed: Path, int8_bundle: Path, tmp_path: Path, entry: str) -> None:
    command = [installed / "hart-edge"] if entry == "hart-edge" else [installed / "python", "-m", "hart_edge"]
    picture = tmp_path / "face.png"
    arguments = ("--bundle", int8_bundle.resolve(), "--seed", "7", "--out", picture)
    said = run(*command, "generate", "a grinning face", *arguments, cwd=tmp_path)
    assert "face.png" in said
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert image.size == (128, 128)
        pixels = np.asarray(image.convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


def test_import_is_quick_and_slim(installed: Path, tmp_path: Path) -> None:
    """Requirement: import hart_edge takes under 0.3 s (median of 5 processes) and loads no engine library."""
    runs = [run(installed / "python", "-c", TIME_IMPORT, cwd=tmp_path).split() for _ in range(5)]
    assert [loaded for _, *loaded in runs] == [[]] * 5
    assert statistics.median(float(seconds) for seconds, *_ in runs) < 0.3


def test_import_is_slim_where_everything_is_installed() -> None:
    """In the environment of the tests torch could be loaded, and must not be."""
    _, *loaded = run(sys.executable, "-c", TIME_IMPORT, cwd=ROOT).split()
    assert loaded == []
