"""What is shipped: a header that compiles by itself, a small library that exports only hart_edge_*, and the example."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from hart_edge.engines.loading import load as load_bundle
from tests.runtime.native.conftest import ROOT, SOURCE, Build, compile_library, library_folder, run
from tests.runtime.native.fake_engines import with_engines
from tests.runtime.native.letters_bundle import make_letters_bundle
from tests.runtime.native.library import Handle, NativeError, load

HEADER = SOURCE / "include" / "hart_edge.h"
EXAMPLE = ROOT / "examples" / "c"
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic")


@pytest.mark.parametrize("compiler", [("cc", "-std=c99", "-xc"), ("c++", "-std=c++17", "-xc++")], ids=["c99", "c++17"])
def test_the_header_compiles_by_itself(tmp_path: Path, compiler: tuple[str, ...]) -> None:
    source = tmp_path / "program.c"
    source.write_text('#include "hart_edge.h"\nint main(void) { return hart_edge_abi_version() == 0; }\n')
    run(*compiler, *STRICT, f"-I{HEADER.parent}", "-c", source, "-o", tmp_path / "program.o")


def test_the_header_names_no_engine() -> None:
    text = HEADER.read_text("utf-8")
    assert re.findall(r"^#include .*", text, re.M) == ["#include <stdint.h>"]
    for line in re.findall(r"^HART_EDGE_API[^;]*;", text, re.M):
        before = text[: text.index(line)].rstrip()
        assert before.endswith("*/"), line  # every function has a comment
        comment = before[before.rindex("/*") :]
        assert "hread" in comment, line  # which says from which thread it may be called


def exported(library: Path) -> list[str]:
    lines = run("nm", "--dynamic", "--defined-only", library).splitlines()
    return sorted(line.split()[-1].split("@")[0] for line in lines)


def test_only_our_functions_are_exported(built: Build) -> None:
    declared = re.findall(r"^HART_EDGE_API .*?\b(hart_edge_\w+)\(", HEADER.read_text("utf-8"), re.M)
    assert len(declared) == 12
    assert exported(built.library) == sorted(declared)


def test_the_library_is_small(built: Build, tmp_path: Path) -> None:
    """Under 1 MB without symbols, and linked with no engine library."""
    run("strip", "-o", tmp_path / "stripped.so", built.library.resolve())
    assert (tmp_path / "stripped.so").stat().st_size < 1_000_000
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "--dynamic", built.library))
    told = (ROOT / "docs" / "embedding.md").read_text("utf-8").split("### What a device needs")[1].split("\n### ")[0]
    documented = set(re.findall(r"`(lib[\w+-]+\.so\.\d+)`", told)) - {"libhart_edge.so.1"}
    assert {name for name in needed if not name.startswith("ld-linux")} == documented


def test_a_missing_compiler_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        AssertionError, match=r"needs cmake, and it is not installed; runtime/native/requirements\.sh lists"
    ):
        compile_library(tmp_path / "build")


# The installed library is found by pkg-config and by CMake, and the example draws.


def test_installed_files(installed: Path) -> None:
    files = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if not path.is_dir()}
    folder = library_folder(installed).relative_to(installed).as_posix()
    assert files == {
        "include/hart_edge.h",
        *(f"{folder}/libhart_edge.so{version}" for version in ("", ".1", ".0.1.0")),
        *(f"{folder}/cmake/hart_edge/hart_edge-config{part}.cmake" for part in ("", "-none", "-version")),
        f"{folder}/pkgconfig/hart_edge.pc",
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_letters_bundle(tmp_path_factory.mktemp("tiny") / "tiny")


def draw(program: Path, bundle: Path, prefix: Path, engine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {"LD_LIBRARY_PATH": str(library_folder(prefix)), "HART_EDGE_ONNXRUNTIME": str(engine)}
    command = [str(program), str(bundle), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=program.parent)


@pytest.mark.parametrize("way", ["pkg-config", "cmake"])
def test_the_example_draws_what_python_draws(
    installed: Path, tiny: Path, engine: Path, tmp_path: Path, way: str
) -> None:
    if way == "pkg-config":
        program, pkgconfig = tmp_path / "draw", library_folder(installed) / "pkgconfig"
        environment = {**os.environ, "PKG_CONFIG_PATH": str(pkgconfig)}
        flags = run("pkg-config", "--cflags", "--libs", "hart_edge", "libpng", env=environment).split()
        run("cc", "-std=c99", *STRICT, EXAMPLE / "draw.c", *flags, "-o", program)
    else:
        run("cmake", "-S", EXAMPLE, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={installed}")
        run("cmake", "--build", tmp_path)
        program = tmp_path / "draw"
    done = draw(program, tiny, installed, engine, "ab", "7", "ab.png")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "1 of 2 scales\n2 of 2 scales\n")
    with Image.open(tmp_path / "ab.png") as image:
        assert image.tobytes() == load_bundle(tiny).generate("ab", seed=7).tobytes()
    failed = draw(program, tiny, installed, engine, "", "7", "none.png")
    assert failed.returncode == 1 and not (tmp_path / "none.png").exists()
    assert failed.stderr.startswith("error: prompt: expected words, found an empty string;")
    for seed in ("abc", "", "7x", "-1", " 7", str(2**64)):
        odd = draw(program, tiny, installed, engine, "ab", seed, "none.png")
        assert (odd.returncode, odd.stderr) == (2, f"error: seed: expected 0 to 2^64 - 1, found {seed}\n")
    largest = draw(program, tiny, installed, engine, "ab", str(2**64 - 1), "largest.png")
    assert largest.returncode == 0
    missing = draw(program, tmp_path / "absent", installed, engine, "ab", "7", "none.png")
    assert missing.returncode == 1 and "expected a bundle folder, found none" in missing.stderr


def test_ctrl_c_cancels_the_example(installed: Path, int8_bundle: Path, engine: Path, tmp_path: Path) -> None:
    """An interrupt after the first scale leaves no file, and the message says why."""
    program = tmp_path / "draw"
    linked = ["-L", library_folder(installed), "-lhart_edge", "-lpng"]
    run("cc", EXAMPLE / "draw.c", f"-I{installed}/include", *linked, "-o", program)
    environment = {"LD_LIBRARY_PATH": str(library_folder(installed)), "HART_EDGE_ONNXRUNTIME": str(engine)}
    command = [str(program), str(int8_bundle), "a red heart", "7", "heart.png"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "1 of 7 scales\n"
        process.send_signal(2)
        rest = process.stderr.read()
    assert process.returncode == 1 and rest.endswith("error: cancelled\n") and "7 of 7" not in rest
    assert not (tmp_path / "heart.png").exists()


@pytest.mark.slow
def test_a_release_with_everything_linked_in(tmp_path: Path) -> None:
    """A release with PCRE2 and utf8proc linked in is small too, and needs only the C++ library."""
    release = compile_library(tmp_path / "release", "-DCMAKE_BUILD_TYPE=Release", "-DHART_EDGE_TENSORRT=OFF")
    run("strip", "-o", tmp_path / "release.so", release.library.resolve())
    assert (tmp_path / "release.so").stat().st_size < 1_000_000
    whole = compile_library(tmp_path / "whole", "-DHART_EDGE_STATIC_DEPENDENCIES=ON")
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "--dynamic", whole.library))
    assert all(re.fullmatch(r"lib(stdc\+\+|gcc_s|c|m)\.so\.\d+|ld-linux.*", name) for name in needed), needed
    assert exported(whole.library) == exported(release.library)
    engines = with_engines(make_letters_bundle(tmp_path / "letters"), tmp_path / "engines")
    with pytest.raises(NativeError, match="was built for tensorrt, found a library without it; build the library"):
        Handle(load(release.library), engines)
