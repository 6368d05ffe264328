"""The C library, built incrementally, once per run, in build/native-tests. Without a compiler the tests fail."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from filelock import FileLock

from tests import one_thread as threads
from tests.runtime.native import library

one_thread = threads.one_thread

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "runtime" / "native"
INSTALL = "runtime/native/requirements.sh lists what to install, and installs it for root"


@dataclass(frozen=True)
class Build:
    """A build folder and the files in it."""

    folder: Path

    @property
    def library(self) -> Path:
        return self.folder / "libhart_edge.so"

    @property
    def doors(self) -> Path:
        return self.folder / "tests" / "libhart_edge_doors.so"

    @property
    def counter(self) -> Path:
        return self.folder / "tests" / "libhart_edge_count.so"


def run(*command: str | Path, **more: Any) -> str:
    """The output of a command, which must succeed."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def compile_library(folder: Path, *settings: str) -> Build:
    for tool in ("cmake", "c++"):
        assert shutil.which(tool), f"the C library needs {tool}, and it is not installed; {INSTALL}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "tests.lock"):  # another process of the run may be building it
        run("cmake", "-S", SOURCE, "-B", folder, "-DHART_EDGE_TESTING=ON", *settings)
        run("cmake", "--build", folder, "--parallel", "2")
    return Build(folder)


@pytest.fixture(scope="session")
def built() -> Build:
    """Built with -O1, in half the time of a release, with the same arithmetic; with TensorRT, by stand-in headers."""
    tensorrt = ("-DHART_EDGE_TENSORRT=ON", f"-DTENSORRT_ROOT={ROOT / 'tests' / 'runtime' / 'native' / 'tensorrt'}")
    folder = ROOT / "build" / "native-tests"
    return compile_library(folder, "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1", *tensorrt)


@pytest.fixture(scope="session")
def installed(built: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix of `cmake --install`."""
    prefix = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", built.folder, "--prefix", prefix)
    return prefix


def library_folder(prefix: Path) -> Path:
    (found,) = prefix.glob("lib/**/libhart_edge.so")
    return found.parent


@pytest.fixture(scope="session")
def engine() -> Path:
    """The ONNX Runtime library that Python uses."""
    (found,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    return found


@pytest.fixture(scope="session")
def native(built: Build, engine: Path) -> Any:
    """The library. It finds the ONNX Runtime of Python through the environment, as in a program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HART_EDGE_ONNXRUNTIME", str(engine))
        yield library.load(built.library)


@pytest.fixture(scope="session")
def doors(built: Build) -> Any:
    return ctypes.CDLL(str(built.doors))
