"""One root for imports: hart_edge installs no module name that a user's own folder may have, and imports none of it.

The environment has the wheel; the other packages that commands need come from the environment of the tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.runtime.words_bundle import make_words_bundle

OWN = ("runtime", "engines", "calib")
EVERY_MODULE = """
import importlib, json, os, pkgutil, runpy, sys
for name in ("export.build", "hart_edge"):
    sys.argv = [name, "--help"]
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        assert ended.code == 0, ended
import hart_edge
for found in pkgutil.walk_packages(hart_edge.__path__, "hart_edge."):
    try:
        importlib.import_module(found.name)
    except ModuleNotFoundError as error:
        assert error.name == "ray", error  # of the extra `ray`, which tests do without
names = {}
for name, module in list(sys.modules.items()):
    file = os.path.realpath(getattr(module, "__file__", None) or "")
    if file.startswith(sys.paths_of_ours):
        names.setdefault(file, {})[id(module)] = name
twice = [sorted(each.values()) for each in names.values() if len(each) > 1]
print(json.dumps({"files": len(names), "twice": twice, "of": hart_edge.__file__}))
"""


def every_module(root: Path, *folders: str) -> str:
    """A program that imports every module, and prints the files of these folders that two modules were loaded from."""
    return EVERY_MODULE.replace("sys.paths_of_ours", repr(tuple(f"{root / folder}{os.sep}" for folder in folders)))


class Environment:
    """A virtual environment that has only what a test installs into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        (self.packages,) = folder.glob("lib/python*/site-packages")
        (self.packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def pip(self, *arguments: str | Path) -> None:
        command = [sys.executable, "-m", "pip", "--python", self.folder / "bin" / "python", *arguments]
        subprocess.run([str(each) for each in command], check=True, capture_output=True, cwd=self.folder)

    def install(self, wheel: Path) -> None:
        self.pip("install", "--quiet", "--no-index", "--no-deps", "--ignore-installed", wheel)

    def call(self, program: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
        command = [str(self.folder / "bin" / program), *map(str, arguments)]
        clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("namespace") / "venv")
    made.install(wheel)
    return made


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's folder whose modules have the same names as hart_edge's, which must not import them."""
    for name in OWN:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise AssertionError(f'{__name__} is of the user')\n")
    (tmp_path / "export.py").write_text("raise AssertionError(f'{__name__} is of the user')\n")
    return tmp_path


def test_nothing_at_the_top_level_but_the_package_and_its_build_command(environment: Environment) -> None:
    names = {path.name for path in environment.packages.iterdir() if not path.name.startswith("__pycache__")}
    assert {name for name in names if not name.endswith((".dist-info", ".pth"))} == {"hart_edge", "export"}
    assert [path.name for path in (environment.packages / "export").glob("*.py")] == ["build.py"]


def test_a_folder_with_modules_of_the_same_names(environment: Environment, own: Path) -> None:
    bundle = make_words_bundle(own / "words")
    drawn = environment.call("hart-edge", "generate", "w1", "--bundle", bundle, cwd=own)
    assert (drawn.returncode, drawn.stderr) == (0, "") and (own / "picture.png").is_file()
    module = environment.call("python", "-m", "hart_edge", "generate", "w1", "--bundle", bundle, cwd=own)
    assert (module.returncode, module.stderr) == (0, "")
    for command in ("build", "calibrate"):  # they fail on reading the checkpoint, when all is imported
        done = environment.call("hart-edge", command, "--checkpoint", "nowhere", "--out", "x", cwd=own)
        assert done.returncode == 1 and "\nerror: nowhere: no such checkpoint folder" in done.stderr, done.stderr
    program = "import hart_edge; print(hart_edge.load(*__import__('sys').argv[1:]).manifest.name)"
    loaded = environment.call("python", "-c", program, bundle, cwd=own)
    assert (loaded.returncode, loaded.stderr) == (0, "")


def test_the_build_command_after_installation(environment: Environment, tmp_path: Path) -> None:
    shown = environment.call("python", "-m", "export.build", "--precision", "int8", "--help", cwd=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "") and shown.stdout.startswith("usage: python -m export.build ")
    done = environment.call("python", "-m", "export.build", "--checkpoint", "nowhere", cwd=tmp_path)
    assert done.returncode == 1 and "\nerror: nowhere: no such checkpoint folder" in done.stderr


def test_the_build_command_in_the_checkout() -> None:
    command = [sys.executable, "-m", "export.build", "--precision", "int8", "--help"]
    shown = subprocess.run(command, cwd=ROOT, env=here(), capture_output=True, text=True)
    assert (shown.returncode, shown.stderr) == (0, "") and shown.stdout.startswith("usage: python -m export.build ")


@pytest.mark.long
def test_no_file_has_two_names_in_the_checkout() -> None:
    program = every_module(ROOT, "hart_edge", "export", *OWN)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=here(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["twice"] == [] and found["files"] > 150 and found["of"] == str(ROOT / "hart_edge" / "__init__.py")


def test_no_file_has_two_names_after_installation(environment: Environment, tmp_path: Path) -> None:
    program = every_module(environment.packages, "hart_edge", "export")
    done = environment.call("python", "-c", program, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["twice"] == [] and found["files"] > 150
    assert found["of"] == str(environment.packages / "hart_edge" / "__init__.py")


def test_beside_a_distribution_that_owns_runtime(wheel: Path, tmp_path: Path) -> None:
    """Either can be installed first and uninstalled first; the other keeps working."""
    made, other = Environment(tmp_path / "venv"), other_distribution(tmp_path)

    def works(name: str, value: str) -> bool:
        done = made.call("python", "-c", f"import {name}; print({name}.{value})", cwd=tmp_path)
        return done.returncode == 0 and done.stdout == "0.1.0\n"

    for first, second in ((wheel, other), (other, wheel)):
        made.install(first)
        made.install(second)
        assert works("hart_edge", "__version__") and works("runtime", "__version__")
        assert made.call("python", "-m", "hart_edge", "--version", cwd=tmp_path).stdout == "hart-edge 0.1.0\n"
        made.pip("uninstall", "--quiet", "--yes", "hart-edge" if first == wheel else "runtime")
        if first == wheel:
            assert works("runtime", "__version__") and not works("hart_edge", "__version__")
            assert not (made.packages / "export").exists()
            made.pip("uninstall", "--quiet", "--yes", "runtime")
        else:
            assert works("hart_edge", "__version__") and not works("runtime", "__version__")


def other_distribution(folder: Path) -> Path:
    """A wheel of another project, with a top-level package `runtime`."""
    wheel, info = folder / "runtime-0.1.0-py3-none-any.whl", "runtime-0.1.0.dist-info"
    files = {
        "runtime/__init__.py": '__version__ = "0.1.0"\n',
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: runtime\nVersion: 0.1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    return wheel


def here() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
