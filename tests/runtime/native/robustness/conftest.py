"""The programs of this folder, built plain with the library of the other native tests, and under sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runtime.native.conftest import ROOT, SOURCE, Build, run
from tests.runtime.native.robustness.bundles import Bundles, make_bundles

HERE = Path(__file__).parent
FUZZERS = ("manifest", "graph", "tokenizer_file", "tokenizer")
COMPILED = [f"hart_edge_{name}" for name in ("program", "threads", "rounds", "failures")]

Programs = Callable[..., str]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Bundles:
    return make_bundles(tmp_path_factory.mktemp("bundles"))


class Runner:
    """A build folder's programs, run with the engine library that Python uses."""

    def __init__(self, folder: Path, engine: Path, **environment: str) -> None:
        self.folder = folder / "tests" / "robustness"
        named = {"HART_EDGE_ONNXRUNTIME": str(engine), "HART_EDGE_REAL_ONNXRUNTIME": str(engine)}
        self.environment = os.environ | named | environment

    @property
    def failing_engine(self) -> Path:
        return self.folder / "libhart_edge_failing_engine.so"

    def __call__(self, name: str, *arguments: object, before: tuple[str, ...] = ()) -> str:
        """The output of hart_edge_NAME, which must succeed and leave standard error, where sanitizers report, empty."""
        command = [*before, str(self.folder / f"hart_edge_{name}"), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=self.environment)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-8000:]}"
        return done.stdout if not before else done.stdout + done.stderr


@pytest.fixture(scope="session")
def plain(built: Build, engine: Path) -> Runner:
    """The programs with the library of the other native tests."""
    targets = [*COMPILED, *(f"hart_edge_replay_{name}" for name in FUZZERS)]
    run("cmake", "--build", built.folder, "--parallel", "2", "--target", *targets)
    return Runner(built.folder, engine)


@pytest.fixture(scope="session")
def sanitized(built: Build, engine: Path) -> Callable[..., Runner]:
    """A function that builds targets under a sanitizer, in build/native-check-SANITIZER, and runs them."""

    def build(sanitizer: str, targets: list[str], *settings: str, **environment: str) -> Runner:
        folder = ROOT / "build" / f"native-check-{sanitizer.split(',')[0]}"
        flags = f"-O1 -g -fno-omit-frame-pointer -fsanitize={sanitizer} -fno-sanitize-recover=all"
        # PCRE2 and utf8proc are linked in, so that their allocations can be made to fail like the library's own.
        run("cmake", "-S", SOURCE, "-B", folder, "-DHART_EDGE_TESTING=ON", "-DHART_EDGE_STATIC_DEPENDENCIES=ON",
            f"-DONNXRUNTIME_ROOT={built.folder / 'onnxruntime'}", "-DCMAKE_BUILD_TYPE=None",
            f"-DCMAKE_C_FLAGS={flags}", f"-DCMAKE_CXX_FLAGS={flags}", *settings)  # fmt: skip
        run("cmake", "--build", folder, "--parallel", "2", "--target", *targets)
        return Runner(folder, engine, **environment)

    return build


def need(tool: str, package: str) -> str:
    """The path of a tool, or a failure that says what to install."""
    found = shutil.which(tool)
    assert found, f"expected {tool}, found none; on Debian or Ubuntu: apt-get install {package}"
    return found


@pytest.fixture(scope="session")
def address(sanitized: Callable[..., Runner]) -> Runner:
    """Address, leak and undefined-behaviour sanitizers."""
    return sanitized(
        "address,undefined",
        COMPILED,
        ASAN_OPTIONS="detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1",
        UBSAN_OPTIONS="print_stacktrace=1",
    )


@pytest.fixture(scope="session")
def thread(sanitized: Callable[..., Runner]) -> Runner:
    """The thread sanitizer. ONNX Runtime is not built with it, so its calls are not checked."""
    options = f"suppressions={HERE / 'threads.supp'}:halt_on_error=1:report_mutex_bugs=0"
    return sanitized("thread", COMPILED, TSAN_OPTIONS=options)


@pytest.fixture(scope="session")
def fuzzers(sanitized: Callable[..., Runner]) -> Runner:
    """The libFuzzer targets, under the address and undefined-behaviour sanitizers."""
    c, cxx = (
        next(filter(None, map(shutil.which, names)), "") for names in (("clang", "clang-14"), ("clang++", "clang++-14"))
    )
    assert c and cxx, "expected clang, found none; on Debian or Ubuntu: apt-get install clang"
    return sanitized(
        "fuzzer-no-link,address,undefined",
        [f"hart_edge_fuzz_{name}" for name in FUZZERS],
        f"-DCMAKE_C_COMPILER={c}",
        f"-DCMAKE_CXX_COMPILER={cxx}",
    )
