"""The same program in other languages draws what Python draws: ctypes, and Go and Rust from docs/languages.md."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from hart_edge.engines.loading import load
from tests.runtime.native.conftest import ROOT, library_folder, run
from tests.runtime.native.letters_bundle import make_letters_bundle

PYTHON = ROOT / "examples" / "python-ctypes" / "draw.py"
PAGE = ROOT / "docs" / "languages.md"


def test_every_program_of_the_page_is_compiled() -> None:
    assert re.findall(r"^```(\w+)$", PAGE.read_text("utf-8"), re.M) == ["go", "rust"]


@dataclass(frozen=True)
class Program:
    """A command that draws, the file that it writes, and its environment."""

    command: list[str]
    folder: Path
    picture: str
    environment: dict[str, str]

    def draw(self, bundle: Path, prompt: str) -> tuple[int, str]:
        """Exit status and standard error."""
        done = subprocess.run(
            [*self.command, str(bundle), prompt, "7", self.picture],
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=self.folder,
        )
        assert done.stdout == ""
        return done.returncode, done.stderr

    def draws_what_python_draws(self, bundle: Path) -> None:
        assert self.draw(bundle, "ab") == (0, "1 of 2 scales\n2 of 2 scales\n")
        with Image.open(self.folder / self.picture) as image:
            assert image.tobytes() == load(bundle).generate("ab", seed=7).tobytes()
        (self.folder / self.picture).unlink()
        status, message = self.draw(bundle, "")
        assert status == 1 and message.startswith("error: prompt: expected words, found an empty string; say what to")
        status, message = self.draw(self.folder / "absent", "ab")
        assert status == 1 and "absent: expected a bundle folder, found none" in message
        assert not (self.folder / self.picture).exists()

    def stops_at_ctrl_c(self, bundle: Path) -> None:
        """An interrupt after the first scale stops it."""
        command = [*self.command, str(bundle), "a red heart", "7", self.picture]
        with subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env=self.environment, cwd=self.folder
        ) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "1 of 7 scales\n"
            process.send_signal(2)
            rest = process.stderr.read()
        assert process.returncode == 1 and rest.endswith("error: cancelled\n") and "7 of 7" not in rest
        assert not (self.folder / self.picture).exists()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_letters_bundle(tmp_path_factory.mktemp("tiny") / "tiny")


@pytest.fixture
def environment(installed: Path, engine: Path) -> dict[str, str]:
    found = {
        "HART_EDGE_LIBRARY": str(library_folder(installed) / "libhart_edge.so.1"),
        "HART_EDGE_ONNXRUNTIME": str(engine),
        "LD_LIBRARY_PATH": str(library_folder(installed)),
        "PKG_CONFIG_PATH": str(library_folder(installed) / "pkgconfig"),
    }
    return {**os.environ, **found}


def test_ctypes(tiny: Path, int8_bundle: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    program = Program([sys.executable, str(PYTHON)], tmp_path, "ab.png", environment)
    program.draws_what_python_draws(tiny)
    program.stops_at_ctrl_c(int8_bundle)


def source(language: str, file: Path) -> Path:
    """Write the program that the page shows for a language into a file."""
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text("utf-8"), re.M | re.S)
    file.write_text(text)
    return file


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("go") is None, reason="needs Go; apt-get install golang-go")
def test_go(tiny: Path, int8_bundle: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    draw = source("go", tmp_path / "draw.go")
    assert run("gofmt", "-l", draw) == ""
    run("go", "build", "-o", tmp_path / "draw", draw, env={**environment, "GOCACHE": str(tmp_path / "cache")})
    program = Program([str(tmp_path / "draw")], tmp_path, "ab.png", environment)
    program.draws_what_python_draws(tiny)
    program.stops_at_ctrl_c(int8_bundle)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("rustc") is None, reason="needs Rust; apt-get install rustc")
def test_rust(installed: Path, tiny: Path, int8_bundle: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    draw = source("rust", tmp_path / "draw.rs")
    strict = ["--edition", "2021", "-D", "warnings", "-O", "-L", library_folder(installed)]
    run("rustc", *strict, draw, "-o", tmp_path / "draw")
    program = Program([str(tmp_path / "draw")], tmp_path, "ab.ppm", environment)
    program.draws_what_python_draws(tiny)
    program.stops_at_ctrl_c(int8_bundle)
